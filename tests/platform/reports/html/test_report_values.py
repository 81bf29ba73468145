"""The names that the report's template shows."""

from platform.reports.html.context import context
from platform.reports.html.page import TEMPLATE
from platform.reports.html.report_values import ReportContext
from platform.reports.snapshot import SweepSnapshot

import jinja2
from jinja2 import meta


def test_the_template_shows_what_the_context_holds(sweep: SweepSnapshot) -> None:
    names = set(ReportContext.__annotations__)
    assert set(context(sweep, None, "x")) == names
    template = jinja2.Environment(autoescape=True).parse(TEMPLATE.read_text(encoding="utf-8"))
    assert meta.find_undeclared_variables(template) == names | {"plotly", "chart_config"}
