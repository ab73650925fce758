"""The shape of the house: which way imports run, and that the papers agree with the code."""

import ast
import importlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from jobs import table
from jobs.__main__ import purposes

ROOT = Path(__file__).parent.parent
ROOMS = ("yolox_core", "pipelines", "jobs")
JOBS = sorted(purposes())
README = (ROOT / "README.md").read_text()


MAY_IMPORT: dict[str, set[str]] = {
    "storage": set(),
    "photos": {"storage"},
    "detectors": {"storage", "photos"},
    "tables": {"storage", "photos", "detectors"},
    "labelling": {"storage", "photos", "detectors", "tables"},
    "datasets": {"storage", "photos", "tables"},
    "evaluation": {"datasets"},
    "review": {"storage", "photos", "tables", "comparison"},
    "exports": {"storage", "photos", "tables"},
    "comparison": {"storage", "tables"},
    "submission": {"tables"},
    "training": {
        *("storage", "photos", "detectors", "tables"),
        *("labelling", "datasets", "evaluation", "review"),
    },
}
"""Which room of pipelines/ may ask which. All of them may ask the modules beside the rooms."""

LONGEST_MODULE = 400


def _modules(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it; a name from a package may be one, too."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


def _imports(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    return {module.partition(".")[0] for module in _modules(path)}


def _files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def _rooms_asked_by(path: Path) -> set[str]:
    named = {module.split(".")[1] for module in _modules(path) if module.startswith("pipelines.")}
    return named & set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("room", "above"), [("yolox_core", {"pipelines", "jobs"}), ("pipelines", {"jobs"})]
)
def test_arrows_run_from_jobs_to_pipelines_to_yolox_core(room: str, above: set[str]) -> None:
    assert [path for path in _files(room) if _imports(path) & above] == []


def test_every_room_of_the_pipelines_has_its_arrows() -> None:
    rooms = {path.parent.name for path in (ROOT / "pipelines").glob("*/__init__.py")}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_asks_only_the_rooms_below_it(room: str) -> None:
    allowed = {room, *MAY_IMPORT[room]}
    asked = {path.name: _rooms_asked_by(path) for path in _files(f"pipelines/{room}")}
    assert {name: rooms for name, rooms in asked.items() if rooms - allowed} == {}


def test_the_arrows_between_rooms_go_one_way() -> None:
    list(TopologicalSorter(MAY_IMPORT).static_order())  # raises CycleError


@pytest.mark.parametrize("folder", ["pipelines", "yolox_core", "jobs"])
def test_no_two_modules_import_each_other_whatever_the_way_round(folder: str) -> None:
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in _files(folder)
    }
    graph = {name: _modules(path) & set(names) - {name} for name, path in names.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_what_a_room_does_not_hand_on_stays_inside(room: str) -> None:
    stub = ast.parse((ROOT / f"pipelines/{room}/__init__.pyi").read_text())
    handed_on = {
        f"pipelines.{room}.{alias.name}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    others = [
        path
        for path in _files("pipelines", "jobs", "benchmarks")
        if ROOT / "pipelines" / room not in path.parents
    ]
    asked = {
        module
        for path in others
        for module in _modules(path)
        if module.startswith(f"pipelines.{room}.")
    }
    assert asked - handed_on == set()


def test_no_module_is_longer_than_a_person_reads() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in _files("pipelines", "jobs")}
    assert {path: length for path, length in lines.items() if length > LONGEST_MODULE} == {}


def test_the_detector_knows_neither_ray_nor_arrow_nor_fsspec() -> None:
    for path in (ROOT / "yolox_core").rglob("*.py"):
        assert not _imports(path) & {"ray", "pyarrow", "fsspec", "s3fs"}, path.name


def test_what_fetches_and_writes_need_not_wait_for_torch() -> None:
    for room in ("storage", "photos", "tables"):
        for path in (ROOT / "pipelines" / room).rglob("*.py"):
            assert not _imports(path) & {"torch", "yolox_core"}, path


@pytest.mark.parametrize("job", JOBS)
def test_every_job_explains_itself(job: str, capsys, monkeypatch) -> None:
    module = importlib.import_module(f"jobs.{job}")
    monkeypatch.setattr(sys, "argv", [job, "--help"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 0
    assert "usage: " in capsys.readouterr().out


@pytest.mark.parametrize("job", JOBS)
def test_the_help_of_a_job_waits_for_neither_torch_nor_ray(job: str) -> None:
    heavy = "dict.fromkeys(['torch', 'torchvision', 'ray', 'matplotlib', 'moto'])"
    code = (
        f"import sys; sys.modules.update({heavy}); sys.argv = ['yolox-ray', '{job}', '--help'];"
        "from jobs.__main__ import main; main()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", ["list", "check", "drop", "compact", "ddl"])
def test_every_command_for_a_table_explains_itself(command: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["table", command, "--help"])
    with pytest.raises(SystemExit) as stop:
        table.main()
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert f" {command} " in printed
    assert "--table TABLE" in printed


def _readme_commands() -> list[tuple[str, list[str], set[str]]]:
    """(job, its sub-command, its flags) of every `python -m jobs.…` in the README's code blocks."""
    blocks = "\n".join(re.findall(r"```[a-z]*\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    commands = re.findall(r"python -m jobs\.(\w+)(?: +([a-z]+))?([^\n]*)", blocks)
    return [
        (job, [command] if command else [], set(re.findall(r"--(\w+)", rest)))
        for job, command, rest in commands
    ]


def test_the_readme_names_only_jobs_and_flags_that_exist(capsys, monkeypatch) -> None:
    commands = _readme_commands()
    assert {job for job, _, _ in commands} >= {"label", "train", "query"}
    for job, command, flags in commands:
        monkeypatch.setattr(sys, "argv", [job, *command, "--help"])
        with pytest.raises(SystemExit):
            importlib.import_module(f"jobs.{job}").main()
        known = set(re.findall(r"--(\w+)", capsys.readouterr().out))
        assert flags <= known, f"{job}: {flags - known}"


def _named_in_the_table_of_additions() -> list[list[str]]:
    """The paths that each row of "Where do I add" names."""
    text = (ROOT / "docs/architecture.md").read_text().partition("## Where do I add")[2]
    rows = [line for line in text.splitlines() if line.startswith("| a")]
    assert rows
    return [re.findall(r"`([\w/]+(?:\.py|/))`", row) for row in rows]


def test_an_addition_touches_three_files_at_most_and_they_are_there() -> None:
    for paths in _named_in_the_table_of_additions():
        assert len(paths) <= 3
        assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_fault_in_the_documentation_names_a_test_that_exists() -> None:
    text = (ROOT / "docs/reliability.md").read_text()
    path, named = "", []
    for found, test in re.findall(r"`(…|[\w/]+\.py)::(\w+)`", text):
        path = path if found == "…" else found
        named.append((path, test))
    assert len(named) > 25
    missing = [n for n in named if f"def {n[1]}(" not in (ROOT / "tests" / n[0]).read_text()]
    assert missing == []


def test_the_readme_names_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make (\w+)`", README)) <= targets


def test_the_image_is_ray_s_own_of_the_pinned_version_and_its_user_is_not_root() -> None:
    dockerfile = (ROOT / "infra/Dockerfile").read_text()
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert f"\nFROM rayproject/ray:{pinned[1]}-py311-gpu\n" in dockerfile
    assert "-c constraints.txt" in dockerfile
    assert dockerfile.rstrip().endswith("USER ray")


def test_no_tracked_file_is_larger_than_4_mb() -> None:
    large = [path for path in (ROOT / "assets").rglob("*") if path.stat().st_size > 4_000_000]
    assert large == []
