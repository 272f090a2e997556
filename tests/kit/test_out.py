"""Folders and files that a command writes: what is the user's stays, what cannot be written is said first."""

import pytest

from gaugeblock.conformance.out import prepare_file, prepare_out
from gaugeblock.fixtures.errors import KitError


def test_a_folder_of_the_users_stays_although_a_run_has_one_of_that_name(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    (tmp_path / "load.json").write_text("old")
    with pytest.raises(KitError, match=r"run' was not made by an earlier run .* name another folder with --out"):
        prepare_out(tmp_path, ["load.json"], ["run", "calibration"])
    assert (tmp_path / "run" / "thesis.tex").read_text() == "mine"
    assert (tmp_path / "load.json").exists(), "something was removed before the refusal"
    assert not (tmp_path / "calibration").exists()


def test_a_link_to_a_folder_is_the_users(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KitError, match="is left alone"):
        prepare_out(tmp_path, [], ["run"])


def test_a_folder_is_never_removed_in_the_place_of_a_file(tmp_path):
    (tmp_path / "trace.json").mkdir()
    (tmp_path / "trace.json" / "kept").write_text("mine")
    with pytest.raises(KitError, match="is a folder"):
        prepare_out(tmp_path, ["trace.json"])
    assert (tmp_path / "trace.json" / "kept").exists()


def test_the_folders_of_an_earlier_run_are_made_anew(tmp_path):
    prepare_out(tmp_path / "out", ["load.json"], ["run"])
    (tmp_path / "out" / "run" / "old.log").write_text("old")
    (tmp_path / "out" / "load.json").write_text("old")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    prepare_out(tmp_path / "out", ["load.json"], ["run"])
    assert [path.name for path in (tmp_path / "out" / "run").iterdir()] == [".gaugeblock"]
    assert not (tmp_path / "out" / "load.json").exists()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_file_is_tried_and_an_old_one_stays(tmp_path):
    old = tmp_path / "kills.json"
    old.write_text("old")
    prepare_file(old)
    prepare_file(tmp_path / "new" / "kills.json")
    prepare_file(None)
    assert [path.name for path in tmp_path.iterdir()].count("kills.json") == 1
    assert old.read_text() == "old"


def test_a_file_that_cannot_be_written_is_said_before_anything_runs(tmp_path):
    blocker = tmp_path / "blocker"
    blocker.write_text("")
    with pytest.raises(KitError, match="name another file with --out"):
        prepare_file(blocker / "kills.json")
    with pytest.raises(KitError, match="it is a folder"):
        prepare_file(tmp_path)
    with pytest.raises(KitError, match="is read by this command"):
        prepare_file(blocker, None, tmp_path / "." / "blocker")
