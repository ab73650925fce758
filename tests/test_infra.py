"""What lies in infra/ is well formed. What can be tried for real, its job's test does."""

import json
from pathlib import Path

import pytest
import yaml

INFRA = Path(__file__).parents[1] / "infra"


def test_every_alert_says_what_is_the_matter_and_is_in_the_manual() -> None:
    [group] = yaml.safe_load((INFRA / "monitoring/alerts.yaml").read_text())["groups"]
    manual = (INFRA.parent / "docs/operations.md").read_text()
    for rule in group["rules"]:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule)
        assert "{{ $labels.run }}" in rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in manual


@pytest.mark.parametrize("name", ["labelling", "training"])
def test_a_dashboard_asks_for_the_run_that_was_chosen(name: str) -> None:
    dashboard = json.loads((INFRA / f"monitoring/{name}.json").read_text())
    assert dashboard["title"] == f"yolox-ray: {name}"
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert variables == {"datasource", "run"}
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= 8
    assert all('run=~"$run"' in query for query in queries)


def test_the_manual_says_what_each_exit_code_of_labelling_means() -> None:
    manual = (INFRA.parent / "docs/operations.md").read_text()
    for code in (0, 1, 2, 3, 4, 5, 6, 130, 143):
        assert f"| {code} |" in manual
