"""The command in processes of their own that start at once: they are forked from one that has loaded everything."""

import json
import multiprocessing
import os
import sys
import time

LOADED = [
    "lmppl.cli", "lmppl.run.driver", "lmppl.density.binding", "lmppl.lm.transformers.load", "lmppl.engines.gflownet",
    "lmppl.posterior.store", "lmppl.engines.importance", "lmppl.engines.smc", "lmppl.compare.comparison",
    "lmppl.em.rounds", "lmppl.export", "lmppl.run.planning", "lmppl.report.run", "lmppl.report.page", "peft",
    "pyro.distributions", "peft.utils.transformers_weight_conversion", "transformers.models.llama", "learning",
]  # fmt: skip


def context():
    """Processes of one thread of torch's; the first takes as long as the command."""
    os.environ["OMP_NUM_THREADS"] = "1"
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(LOADED)
    return found


def command(folder, arguments, before=None, streams=("stdout.txt", "stderr.txt")):
    """What a process does: `lmppl arguments`, what it prints going into files of the folder. before: called first."""
    import torch

    from lmppl.cli import main

    torch.set_num_threads(1)
    os.chdir(folder)
    sys.argv = ["lmppl", *arguments]
    for stream, name in zip((1, 2), streams, strict=True):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    if before is not None:
        before()
    main()


def start(folder, *arguments, **more):
    process = context().Process(target=command, args=(str(folder), arguments), kwargs=more)
    process.start()
    return process


def finish(process, folder, seconds=100):
    """Exit code, and what was printed."""
    process.join(seconds)
    assert process.exitcode is not None, "still running"
    return process.exitcode, (folder / "stdout.txt").read_text(), (folder / "stderr.txt").read_text()


def run(folder, *arguments, code=0):
    """Standard output and errors of a command that ends with this code."""
    found, out, err = finish(start(folder, *arguments), folder)
    assert found == code, out + err
    assert "Traceback" not in out + err
    assert "internal" not in err
    return out, err


def wait_for(path, seconds=60.0):
    """Until a file or folder is there."""
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.01)


def learned(folder):
    """What two runs alike agree on bit for bit: the adapter's file, and the draws."""
    return (folder / "adapter_model.safetensors").read_bytes(), (folder / "draws.jsonl").read_text()


def steps(folder):
    """Steps of the checkpoints, and those of the log."""
    kept = sorted(int(path.name[5:]) for path in (folder / "training").glob("step-??????"))
    log = (folder / "training" / "log.jsonl").read_text().splitlines()
    return kept, [json.loads(line)["step"] for line in log]
