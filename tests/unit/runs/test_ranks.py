"""Which process decides, and that all that begin at once hear it."""

import os
import threading

import pytest

from headstart.errors import RunError
from headstart.runs.ranks import ACTION_VARIABLE, ProcessPlace, agree, decided, find_place
from headstart.system.atomic import write_json

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "GROUP_RANK": "1"}
SRUN = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_JOB_NAME": "study"}


@pytest.mark.parametrize(
    ("variables", "choice", "place"),
    [
        ({}, (1, 1), ProcessPlace(0)),
        ({}, (4, 1), ProcessPlace(0)),
        (TORCHRUN, (2, 2), ProcessPlace(3, (0, 1, 2))),
        (SRUN, (2, 2), ProcessPlace(2, (0, 1, 3))),
        # A shell on the cluster, or a job with one device: nobody was started beside it for this run.
        ({**SRUN, "SLURM_JOB_NAME": "bash", "SLURM_PROCID": "0"}, (2, 1), ProcessPlace(0)),
        (SRUN, (1, 1), ProcessPlace(0)),
        # One process for each node, which starts the others of its node.
        ({"NODE_RANK": "1"}, (2, 2), ProcessPlace(2, (0,))),
        ({"NODE_RANK": "0"}, (2, 3), ProcessPlace(0, (2, 4))),
        # Each one started by hand.
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, (2, 2), ProcessPlace(2, (0, 1, 3))),
        # Started by Lightning, which repeats the command.
        ({"LOCAL_RANK": "1", ACTION_VARIABLE: "resume"}, (2, 1), ProcessPlace(1, told="resume")),
        ({"NODE_RANK": "1", "LOCAL_RANK": "1", ACTION_VARIABLE: "train"}, (2, 2), ProcessPlace(3, told="train")),
    ],
)
def test_the_place_is_read_from_the_environment(variables, choice, place):
    assert find_place(*choice, variables) == place


def test_another_number_of_processes_than_the_run_needs_is_refused():
    with pytest.raises(RunError, match=r"torchrun has started 4 processes, but trainer\.devices=2 .* make 2"):
        find_place(2, 1, TORCHRUN)
    with pytest.raises(RunError, match="srun has started 4"):
        find_place(2, 4, SRUN)


def test_all_hear_the_first_ones_decision_whatever_an_earlier_start_left(tmp_path):
    folder = tmp_path / "ranks"
    for rank in (1, 2):
        write_json(folder / f"rank-{rank}.json", {"word": "old"})
    write_json(folder / "answer.json", {"action": "return", "words": {"1": "old", "2": "old"}})
    heard = {}

    def take_part(rank):
        others = tuple(other for other in range(3) if other != rank)
        heard[rank] = agree(ProcessPlace(rank, others), folder, "resume" if rank == 0 else None, timeout_s=120)

    threads = [threading.Thread(target=take_part, args=(rank,)) for rank in (2, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {0: "resume", 1: "resume", 2: "resume"}
    assert not folder.exists()


def test_a_process_that_does_not_come_is_named(tmp_path):
    with pytest.raises(RunError, match=r"processes \[1\] did not come within 0\.3 s"):
        agree(ProcessPlace(0, (1,)), tmp_path, "train", timeout_s=0.3)
    with pytest.raises(RunError, match="process 1 heard nothing from process 0"):
        agree(ProcessPlace(1, (0,)), tmp_path, None, timeout_s=0.3)


def test_who_is_alone_or_told_waits_for_nobody(tmp_path):
    assert agree(ProcessPlace(0), tmp_path / "a", "train") == "train"
    assert agree(ProcessPlace(1, told="return"), tmp_path / "a", None) == "return"
    assert not (tmp_path / "a").exists()


def test_the_decision_is_in_the_environment_only_while_it_holds(monkeypatch):
    monkeypatch.delenv(ACTION_VARIABLE, raising=False)
    with decided("train"):
        assert os.environ[ACTION_VARIABLE] == "train"
        with pytest.raises(KeyError), decided("resume"):
            raise KeyError(os.environ[ACTION_VARIABLE])
        assert os.environ[ACTION_VARIABLE] == "train"
    assert ACTION_VARIABLE not in os.environ
