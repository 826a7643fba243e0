// The plan behind the slider: its table, its mark in the chart, and its file.
const slider = document.getElementById("slider");

function showPlan() {
  const number = Number(slider.value);
  for (const panel of document.querySelectorAll(".plan")) panel.hidden = Number(panel.dataset.plan) !== number;
  const traces = FIGURES.front.data;
  const [line, mark] = traces.slice(-2);
  Object.assign(mark, { x: [line.x[number]], y: [line.y[number]] });
  draw();
}

function downloadPlan() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([PLANS[slider.value]], { type: "application/json" }));
  link.download = "plan.json";
  link.click();
  URL.revokeObjectURL(link.href);
}

window.addEventListener("load", () => {
  slider.addEventListener("input", showPlan);
  document.getElementById("download").addEventListener("click", downloadPlan);
  showPlan();
});
