"""Where the rows of an export come from, for whoever finds it a year later."""

from pipelines.exports.selection import Selection


def run_names(selection: Selection) -> str:
    return ", ".join(run["run"] for run in selection.runs)


def description(selection: Selection) -> str:
    return f"Detections of {run_names(selection)} in {selection.table_uri}, by yolox-ray"
