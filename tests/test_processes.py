"""Several processes under plain torchrun: work that is shared, one writer, sentences where nothing is shared."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from convsmith.cli.app import app
from convsmith.errors import ConvsmithError
from convsmith.train import check_alone, joined

ENTRY = "from convsmith.cli import main\nmain()\n"
NET = ("own_net:make", "--input", "3,32,32", "--data", "digits")


def torchrun(folder: Path, processes: int, *args: object, code: str = ENTRY) -> subprocess.Popen[str]:
    (folder / "run.py").write_text(code)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(
        [sys.executable, *launch, str(folder / "run.py"), *map(str, args)], cwd=folder, text=True,
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def done(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=300)
    return child.returncode, out, err


def test_two_processes_share_a_training_and_one_writes_it(tmp_path: Path) -> None:
    """They take half of each batch each: with norms over both, the steps are those of one process but for rounding."""
    train = ("train", *NET, "--epochs", 1, "--device", "cpu")
    told = {}
    for processes in (1, 2):
        status, out, err = done(torchrun(tmp_path, processes, *train, "--sync-bn", "--out", tmp_path / str(processes)))
        assert status == 0, err
        told[processes] = out
        assert err.count("epoch 1/1") == 1
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in "12")
    losses = [json.loads((tmp_path / name / "history.jsonl").read_text())["train_loss"] for name in "12"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert any(not torch.equal(one[name], two[name]) for name in one)
    assert told[2].count("Accuracy after each step") == 1
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == sorted(
        path.name for path in (tmp_path / "2").iterdir()
    )


@pytest.mark.parametrize("command", ["analyze", "optimize", "train --recover bn"])
def test_what_is_not_shared_is_refused_in_a_sentence(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_alone(command)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(
        ConvsmithError, match=rf"^{command}: does not share its work among 3 processes; start it without"
    ):
        check_alone(command)


DEVICES = {
    "more processes than GPUs": (
        "cuda",
        2,
        1,
        r"device: 2 processes have 1 GPUs here; start one for each, or give cpu",
    ),
    "one GPU for all": ("cuda:0", 2, 2, r"device: 'cuda:0' is one GPU, and there are 2 processes; give cuda"),
}


@pytest.mark.parametrize(("name", "processes", "gpus", "told"), DEVICES.values(), ids=DEVICES)
def test_devices_that_do_not_go_round(name, processes, gpus, told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for variable in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(variable, str(processes))
    with pytest.raises(ConvsmithError, match=told):
        joined(name)


SYNCED = """
import torch
from torch import distributed, nn
from convsmith.train.synced import synced_norms
distributed.init_process_group("gloo")
rank, count = distributed.get_rank(), distributed.get_world_size()
for momentum, affine, shape in ((0.1, True, (6, 4, 5, 5)), (None, True, (6, 4, 3)), (0.3, False, (6, 4))):
    torch.manual_seed(0)
    kind = {4: nn.BatchNorm2d, 3: nn.BatchNorm1d, 2: nn.BatchNorm1d}[len(shape)]
    x = torch.randn(shape, dtype=torch.float64).float() * 3 + 1
    weigh = torch.randn(shape)
    norms = [kind(4, momentum=momentum, affine=affine) for _ in range(2)]
    whole, shared = x.clone().requires_grad_(), x[rank::count].clone().requires_grad_()
    wanted = norms[0](whole)
    (wanted * weigh).sum().backward()
    with synced_norms(norms[1]):
        got = norms[1](shared)
        (got * weigh[rank::count]).sum().backward()
        norms[1].eval()
        torch.testing.assert_close(norms[1](shared), nn.Module.__call__(norms[1], shared))
    assert "forward" not in vars(norms[1])
    torch.testing.assert_close(got, wanted[rank::count], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared.grad, whole.grad[rank::count], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norms[1].running_mean, norms[0].running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norms[1].running_var, norms[0].running_var, rtol=1e-4, atol=1e-5)
    assert norms[1].num_batches_tracked == norms[0].num_batches_tracked
    if affine:
        grad = norms[1].weight.grad.clone()
        distributed.all_reduce(grad)
        torch.testing.assert_close(grad, norms[0].weight.grad, rtol=1e-3, atol=1e-4)
distributed.destroy_process_group()
print("alike", flush=True)
"""


@pytest.mark.parametrize("processes", [2, 3])
def test_norms_over_processes_are_those_of_the_whole_batch(tmp_path: Path, processes: int) -> None:
    status, out, err = done(torchrun(tmp_path, processes, code=SYNCED))
    assert (status, out.count("alike")) == (0, processes), err[-2000:]


@pytest.mark.long
def test_two_processes_evaluate_as_one(tmp_path: Path) -> None:
    told = [done(torchrun(tmp_path, n, "evaluate", *NET, "--device", "cpu", "--json", "-"))[1] for n in (1, 2)]
    one, two = map(json.loads, told)
    assert one["images"] == two["images"] == 360
    assert one == pytest.approx(two, rel=1e-6)


LIMITED = ("--images", 160, "--device", "cpu")


def run_by(processes: int, folder: Path, *args: object) -> str:
    """What a command says that ends well: of one process here, which spares the start of another."""
    if processes == 1:
        result = CliRunner().invoke(app, [*map(str, args)])
        status, out, err = result.exit_code, result.stdout, result.stderr
    else:
        status, out, err = done(torchrun(folder, processes, *args))
    assert status == 0, err
    return out


def test_two_processes_decide_and_fit_as_one(tmp_path: Path) -> None:
    """Calibration and pricing are shared, the first writes: plans and fits are those of one but for rounding.

    By a method of closed form: alternating least squares come to another optimum from a rounding of 1e-15.
    """
    plans, fits = [], []
    for n in (1, 2):
        plan, out = tmp_path / f"plan{n}.json", tmp_path / f"net{n}"
        decide = ("--block", "dw-pw:r=2", "--max-macs", "0.6x", "--method", "gsvd", "-o", plan)
        run_by(n, tmp_path, "decompose", *NET, *LIMITED, *decide)
        fit = ("--method", "gsvd", "--no-relu", "--out", out)
        told = run_by(n, tmp_path, "apply", NET[0], plan, *NET[1:], *LIMITED, *fit)
        assert told.count(f"model: {out}") == 1
        plans.append(json.loads(plan.read_text())["edits"])
        fits.append(json.loads((out / "plan.json").read_text())["edits"])
    one, two = ([(edit["layer"], edit["block"]) for edit in edits] for edits in plans)
    assert one == two != []
    for made, name in ((plans, "output_error"), (fits, "error")):
        first, second = ([edit[name] for edit in edits] for edits in made)
        assert first == pytest.approx(second, rel=1e-4)
    assert not [*tmp_path.glob("*.prices"), *tmp_path.rglob("*.part"), *tmp_path.rglob("*.lock")]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("decompose", *NET[:3], "--block", "dw-pw"), "decompose without --data: does not share its work"),
        (("decompose", *NET, "--max-latency", "0.5x"), "decompose --max-latency: does not share its work"),
        (("apply", NET[0], "plan.json", "--out", "out"), "apply without --data: does not share its work"),
    ],
)
def test_what_is_not_shared_of_a_command_is_refused(args, told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(app, [*args])
    assert result.exit_code == 1
    assert told in result.stderr


NAMED = "import os\nprint('I am', os.getpid(), os.environ['RANK'], flush=True)\n"


@pytest.mark.long
def test_a_killed_process_ends_all_and_the_run_goes_on_with_another_number(tmp_path: Path) -> None:
    train = ("train", *NET, "--epochs", 6, "--device", "cpu", "--out", tmp_path / "out")
    child = torchrun(
        tmp_path, 2, *train, code="import os; print('I am', os.getpid(), os.environ['RANK'], flush=True)\n" + ENTRY
    )
    assert child.stdout is not None
    pids = dict(reversed(child.stdout.readline().split()[2:]) for _ in range(2))
    deadline = time.monotonic() + 200
    while not (tmp_path / "out" / "history.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(int(pids["1"]), signal.SIGKILL)
    began = time.monotonic()
    status, _, err = done(child)
    assert status != 0
    assert time.monotonic() - began < 60
    history = (tmp_path / "out" / "history.jsonl").read_text()
    for processes in (4, 1):
        (tmp_path / "out" / "model.json").unlink(missing_ok=True)
        status, _, err = done(torchrun(tmp_path, processes, *train))
        assert status == 0, err
        assert (tmp_path / "out" / "history.jsonl").read_text().startswith(history)
        assert "epoch 1/6" not in err
    assert not list((tmp_path / "out").rglob("*.part"))
    assert not list((tmp_path / "out").rglob("*.lock"))


SLOWLY = """import os, time
from convsmith.planning.pricing import Pricing
print('I am', os.getpid(), os.environ['RANK'], flush=True)
fit = Pricing._fit
def slowly(self, *given):
    time.sleep(0.5)
    return fit(self, *given)
Pricing._fit = slowly
"""


@pytest.mark.long
def test_a_killed_process_ends_a_planning_and_the_same_command_goes_on(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    command = ("decompose", *NET, *LIMITED, "--max-macs", "0.6x", "-o", plan)
    child = torchrun(tmp_path, 2, *command, code=SLOWLY + ENTRY)
    assert child.stdout is not None
    pids = dict(reversed(child.stdout.readline().split()[2:]) for _ in range(2))
    prices, deadline = plan.with_suffix(".prices"), time.monotonic() + 200
    while not (prices.exists() and prices.read_text().count("\n") > 1) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(int(pids["1"]), signal.SIGKILL)
    began = time.monotonic()
    status, _, _ = done(child)
    assert status != 0
    assert time.monotonic() - began < 60
    assert not plan.exists()
    status, _, err = done(torchrun(tmp_path, 1, *command))
    assert status == 0, err
    assert plan.exists()
    assert not prices.exists()


def test_a_net_without_several_processes_is_left_alone() -> None:
    assert joined("cpu").share == (0, 1)
    net = nn.BatchNorm1d(2)
    before = net.running_mean.clone()
    joined("cpu").agree(net)
    assert torch.equal(net.running_mean, before)
