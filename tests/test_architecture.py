"""The floors of docs/architecture.md: imports go down only, and the rooms on one floor are strangers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "vidette"

FLOORS = {
    "errors": 1,
    "video": 2,
    "models": 2,
    "classifier": 3,
    "data": 4,
    "prediction": 4,
    "evaluation": 5,
    "training": 6,
    "diagnosis": 6,
    "streaming": 6,
    "deploy": 6,
    "serving": 6,
    "cluster": 6,
    "api": 7,
    "cli": 7,
    "cli_audit": 7,
    "cli_compare": 7,
    "cli_concat": 7,
    "cli_data": 7,
    "cli_diagnose": 7,
    "cli_evaluate": 7,
    "cli_evaluate_stream": 7,
    "cli_explain": 7,
    "cli_facts": 7,
    "cli_import": 7,
    "cli_options": 7,
    "cli_robustness": 7,
    "cli_stream": 7,
    "cli_tune": 7,
    "cli_view": 7,
    "__init__": 7,
}
STRANGERS = {2, 4, 6}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [
                f"{node.module}.{alias.name}" if node.module == "vidette" else node.module or ""
                for alias in node.names
            ]
        rooms |= {name.split(".")[1] for name in names if name.startswith("vidette.")}
    return rooms


def offences() -> list[str]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        here = room_of(path)
        for there in imported_rooms(path):
            if there == here or there not in FLOORS:
                continue
            up = FLOORS[there] > FLOORS[here]
            sideways = FLOORS[there] == FLOORS[here] and FLOORS[here] in STRANGERS
            if up or sideways:
                found.append(
                    f"{path.relative_to(SOURCE)} (floor {FLOORS[here]}) imports {there} (floor {FLOORS[there]})"
                )
    return found


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in SOURCE.rglob("*.py")}
    assert rooms <= set(FLOORS)
    assert {"video", "models", "classifier", "data", "prediction", "evaluation", "training"} <= rooms


def test_imports_go_down_only():
    assert offences() == []


def test_the_check_sees_a_wrong_import(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from vidette.training.loop import fit\nfrom vidette import api\n")
    assert imported_rooms(wrong) == {"training", "api"}


def test_files_and_functions_stay_small():
    for path in SOURCE.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 400, f"{path} has {len(lines)} lines"
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef):
                doc = len((ast.get_docstring(node, clean=False) or "").splitlines())
                assert node.end_lineno - node.lineno + 1 - doc <= 80, f"{path}:{node.lineno} {node.name}"


HELP = """
import runpy, sys
sys.argv = ["vidette", "--help"]
try:
    runpy.run_module("vidette.cli", run_name="__main__")
except SystemExit:
    pass
"""


@pytest.mark.parametrize("code", [HELP, "import vidette, sys"])
def test_help_and_import_do_not_load_torch(code):
    code += (
        "\nheavy = {'torch', 'av', 'sklearn', 'matplotlib', 'timm'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
