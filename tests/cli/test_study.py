from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from pvops_core.cli import main
from pvops_core.study.errors import StoreError
from pvops_core.study.store import Store

STUDY = 'backends = ["native", "xen"]\nlayouts = "6.1-64"\ncpus = [1, 2]\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text(STUDY)
    return tmp_path


def test_a_study_from_plan_to_results(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "--dry-run", "a.toml"]) == 0
    said = capsys.readouterr().out
    assert "cpus: 1, 2\nbackend: native, xen\n4 cells, 0 of them are there; 4 to run" in said
    assert not (place / "a.results").exists()

    assert main(["study", "a.toml", "--json", "a.json", "--csv", "a.csv", "--html", "a.html"]) == 0
    said, told = capsys.readouterr()
    assert said.startswith("Results are equal at each of 2 points, over 4 runs.")
    assert "4 of 4 cells run; took" in told
    found = json.loads((place / "a.json").read_text())
    assert found["schema"] == "pvops.study/1"
    assert (found["planned"], found["run"], found["exit_code"]) == (4, 4, 0)
    with (place / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["cpus"], row["backend"]) for row in rows] == [(c, b) for c in "12" for b in ("native", "xen")]
    assert "op calls over cpus" in (place / "a.html").read_text()
    assert [int(row["op_calls"]) for row in rows] == [row["op_calls"] for row in found["rows"]]

    assert main(["study", "diff", "a.results", "a.results", "--junit", "a.xml"]) == 0
    assert capsys.readouterr().out == "No change in 4 cells.\n"
    assert (place / "a.xml").read_text().count("<testcase") == 4
    if find_spec("polars"):
        assert main(["study", "results", "a.results", "--parquet", "a.parquet"]) == 0
        assert (place / "a.parquet").read_bytes().startswith(b"PAR1")
        capsys.readouterr()

    assert main(["study", "status", "a.results"]) == 0
    assert "a: 4 of 4 cells are done" in capsys.readouterr().out
    assert main(["study", "status", "a.results", "--json", "-"]) == 0
    how = json.loads(capsys.readouterr().out)
    assert (how["planned"], how["left"]) == (4, 0)
    assert how["backends"] == [{"backend": name, "done": 2, "left": 0, "failed": 0} for name in ("native", "xen")]
    assert main(["study", "a.toml"]) == 0
    assert "0 of 0 cells run, 4 were there" in capsys.readouterr().err
    assert main(["study", "results", "a.results", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_parquet_says_what_it_takes(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pvops_core.cli.common.find_spec", lambda name: None if name == "polars" else name)
    assert main(["study", "a.toml", "--parquet", "a.parquet"]) == 2
    assert "this takes polars: python -m pip install 'pvops-core[parquet]'" in capsys.readouterr().err
    assert not (place / "a.results").exists()


def test_results_of_parts_are_merged(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("native", "xen"):
        (place / f"{name}.toml").write_text(STUDY + f'include = {{backend = "{name}"}}\n')
        assert main(["study", f"{name}.toml"]) == 0
    capsys.readouterr()
    assert main(["study", "merge", "both", "native.results", "xen.results", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["added"] == {"native.results": 2, "xen.results": 2}
    capsys.readouterr()
    assert main(["study", "results", "both"]) == 0
    assert capsys.readouterr().out.startswith("Results are equal at each of 2 points, over 4 runs.")
    assert main(["study", "a.toml", "--output", "both"]) == 0
    assert "0 of 0 cells run, 4 were there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpus = [", "a.toml: is no TOML"),
        ("\ncpu = 1", "a.toml:2: cpu: no key 'cpu'; there are"),
        ("cpus = 1\nbackends = 'xne'", "a.toml:2: backends: no backend 'xne'"),
        ("[[exclude]]\ncpu = 1", "a.toml:2: exclude[0].cpu: no axis 'cpu'"),
        ("plugins = 'none.py'", "none.py"),
        ("kernels = 'a.toml'", "a.toml"),
    ],
)
def test_a_file_that_is_wrong(place: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    (place / "a.toml").write_text(text)
    assert main(["study", "a.toml"]) in {2, 4}
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_a_folder_that_is_wrong(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("status", "resume", "results"):
        assert main(["study", verb, "none"]) == 2
        assert "none: has no results of a study" in capsys.readouterr().err
    (place / "a.results").mkdir()
    (place / "a.results/results.sqlite").write_text("not a database, however long it is\n" * 99)
    for arguments in (["a.toml"], ["results", "a.results"]):
        assert main(["study", *arguments]) == 2
        assert "is damaged, or no database of a study" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_resume_goes_on(place: Path) -> None:
    (place / "a.toml").write_text(STUDY.replace("[1, 2]", "1") + 'seeds = "0..19"\n')
    command = [sys.executable, "-m", "pvops_core", "study"]
    with subprocess.Popen([*command, "a.toml"], stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        kept = 0
        while kept < 3:
            time.sleep(0.2)
            if (place / "a.results/results.sqlite").exists():
                with Store.read(place / "a.results") as store:
                    kept = len(store.keys())
        os.kill(run.pid, signal.SIGINT)
        told = run.communicate()[1]
    assert run.returncode == 6
    with Store.read(place / "a.results") as store:
        kept = len(store.keys())
    assert 3 <= kept < 40
    assert f"{kept} runs are kept in a.results; `pvops study resume a.results` goes on" in told
    again = subprocess.run([*command, "resume", "a.results"], capture_output=True, text=True, check=True)
    assert f"{40 - kept} of {40 - kept} cells run, {kept} were there" in again.stderr
    assert again.stdout.startswith("Results are equal at the one point, over 40 runs.")


def test_several_values_make_a_study_of_a_comparison(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--backends", "native,xen", "--layouts", "6.1-64", "--cpus", "1,2", "--seeds", "0..1"]
    assert main([*words, "--json", "c.json"]) == 0
    assert capsys.readouterr().out.startswith("Results are equal at each of 2 points, over 8 runs.")
    assert json.loads((place / "c.json").read_text())["schema"] == "pvops.study/1"
    assert main(["study", "resume", "compare.results"]) == 0
    assert "0 of 0 cells run, 8 were there" in capsys.readouterr().err
    assert main([*words, "--svg", "c.svg"]) == 2
    assert "--svg goes with one run of each backend only" in capsys.readouterr().err
    assert main([*words, "--memory", "0..2"]) == 2
    assert "--memory: 0 is not in the range" in capsys.readouterr().err


PLUGIN = """
from pvops_core.backends import Backend
backend = Backend(name="demo", base="native", api=2)
"""


def test_a_plugin_that_changes_runs_its_own_cells_again(place: Path) -> None:
    study = 'backends = ["native", "demo"]\nplugins = "demo.py"\nlayouts = "6.1-64"\nseeds = "0..1"\n'
    (place / "a.toml").write_text(study)
    command = [sys.executable, "-m", "pvops_core", "study", "a.toml"]
    told = []
    for source in (PLUGIN, PLUGIN, PLUGIN + "# better\n"):
        (place / "demo.py").write_text(source)
        told.append(subprocess.run(command, capture_output=True, text=True, check=True).stderr)
    assert "4 of 4 cells run;" in told[0]
    assert "0 of 0 cells run, 4 were there;" in told[1]
    assert "2 of 2 cells run, 2 were there;" in told[2]


@pytest.mark.slow
def test_a_study_that_is_killed_again_and_again_comes_to_its_end(place: Path) -> None:
    """Each cell is there once, and as in a study that nobody killed."""
    (place / "a.toml").write_text(STUDY + 'seeds = "0..2"\n')
    command = [sys.executable, "-m", "pvops_core", "study"]
    draw = random.Random(1)
    for wanted in (1, 3, 6):
        with subprocess.Popen([*command, "a.toml"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as run:
            while run.poll() is None and rows_in(place / "a.results") < wanted:
                time.sleep(0.1)
            time.sleep(draw.random())
            run.kill()
    subprocess.run([*command, "resume", "a.results"], capture_output=True, check=True)
    subprocess.run([*command, "a.toml", "-o", "whole"], capture_output=True, check=True)
    same = subprocess.run([*command, "diff", "whole", "a.results"], capture_output=True, text=True, check=True)
    assert same.stdout.startswith("No change in 12 cells.")


def rows_in(folder: Path) -> int:
    """Rows that other processes see now; none where the folder is being made, or a writer was killed there."""
    try:
        with Store.read(folder) as store:
            return len(store.keys())
    except StoreError:
        return 0
