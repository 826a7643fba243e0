"""Records in; tables, and pages that need no network, out."""

from convsmith.report.eight_bits import quantize_only, run_quantize_only
from convsmith.report.expansion import expansion_table
from convsmith.report.falls import falls, rate_line, run_falls
from convsmith.report.front import front_page, front_table
from convsmith.report.net_pages import compare_page, scores_page
from convsmith.report.net_tables import compare_table, scores_table
from convsmith.report.page import report, run_page
from convsmith.report.records import RunRecords, accuracy_record, read_net, read_run, run_record
from convsmith.report.tables import (
    accuracy_table,
    before_after,
    bench_table,
    names_table,
    pareto_table,
    plan_table,
    search_table,
)

__all__ = [
    "RunRecords",
    "accuracy_record",
    "accuracy_table",
    "before_after",
    "bench_table",
    "compare_page",
    "compare_table",
    "expansion_table",
    "falls",
    "front_page",
    "front_table",
    "names_table",
    "pareto_table",
    "plan_table",
    "quantize_only",
    "rate_line",
    "read_net",
    "read_run",
    "report",
    "run_falls",
    "run_page",
    "run_quantize_only",
    "run_record",
    "scores_page",
    "scores_table",
    "search_table",
]  # fmt: skip
