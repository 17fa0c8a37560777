"""What is shown while one waits: stages by name from the first second, and a line every so often."""

import contextlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import lmppl
from lmppl.screen.progress import progress_of, shown

ROOT = Path(__file__).parent.parent.parent


@contextlib.contextmanager
def screen():
    """Standard error where it is no terminal."""
    with contextlib.redirect_stderr(io.StringIO()) as out:
        yield out


def test_a_stage_is_named_once_and_then_how_far_it_is():
    with screen() as out, shown(every=0.05) as progress:
        for row in (1, 2, 3):
            progress(f"row {row} of 3: first draws, 256 × 4", 0, 4)
        progress("row 3 of 3: first draws, 256 × 4", 3, 4)
        deadline = time.monotonic() + 30
        while out.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        progress("training · loss 1", 1, 4)
        progress("training · loss 2", 2, 4)
    lines = out.getvalue().splitlines()
    assert lines[0] == "lmppl: row 1 of 3: first draws, 256 × 4"
    assert lines[1].startswith("lmppl: row 3 of 3: first draws, 256 × 4: 3 of 4, ")
    assert sum("training" in line and ", " not in line for line in lines) == 1
    count = len(lines)
    time.sleep(0.2)
    assert len(out.getvalue().splitlines()) == count, "the thread goes on after the end"


def test_nobody_who_reads_is_no_error():
    with screen() as out, shown(every=60) as progress:
        out.close()
        progress("drawing", 0, 1)
        progress("scoring", 0, 1)


def test_text_of_files_moves_no_cursor():
    with screen() as out, shown(every=60) as progress:
        progress("loading ./\x1b[2Jmodel", 0, 0)
    assert out.getvalue() == "lmppl: loading ./�[2Jmodel\n"


def test_python_asks_for_progress_or_takes_a_function(tiny_folder, tmp_path):
    (tmp_path / "model").symlink_to(tiny_folder)
    (tmp_path / "p.lm").write_text('lm LM = "./model"\nZ ~ LM(" a") max 3 tokens\n')
    program = lmppl.compile(tmp_path / "p.lm")
    asked = {"engine": "annealed", "num_samples": 4, "options": {"particles": 8}}
    with screen() as out:
        program.infer(**asked)
        assert out.getvalue() == ""
        program.infer(**asked, progress=True)
    stages = [line.removeprefix("lmppl: ") for line in out.getvalue().splitlines()]
    assert stages == ["loading ./model", "reading rows", "first draws, 8 × 4", "annealing (β in percent)"]
    told = []
    program.infer(**asked, progress=lambda *stage: told.append(stage))
    assert ("first draws, 8 × 4", 3, 4) in told
    with progress_of(False) as nothing:
        nothing("drawing", 0, 1)


def test_something_is_said_while_torch_is_loaded(tmp_path):
    """Torch takes longest to import: here it takes until the line is out, and cannot be imported at all."""
    (tmp_path / "p.lm").write_text('lm LM = "smollm2-135m"\nZ ~ LM(" a") max 3 tokens\n')
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(2.5)\nraise ImportError('no torch')\n")
    done = subprocess.run(
        [sys.executable, "-m", "lmppl", "run", "p.lm"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "lmppl: starting"
    assert "no torch" in done.stderr
