"""What ``make test`` prints about coverage is read from the data of the run."""

import subprocess
import sys

from least_covered import summary


def of(statements, missing):
    share = 100 * (statements - missing) / statements
    return {"summary": {"num_statements": statements, "missing_lines": missing, "percent_covered": share}}


def test_the_least_covered_come_first_and_those_that_ran_whole_are_left_out():
    files = {"whole.py": of(10, 0), "half.py": of(10, 5), "most.py": of(10, 1), "nothing.py": of(4, 4)}
    report = {"totals": {"num_statements": 1034, "percent_covered": 70.59}, "files": files}
    assert summary(report, 2).splitlines() == [
        "coverage: 70.6 % of 1,034 statements; least covered:",
        "    0.0 %  nothing.py (4 of 4 not run)",
        "   50.0 %  half.py (5 of 10 not run)",
    ]


def test_the_data_of_a_run_are_read(tmp_path, repo):
    traced = tmp_path / "traced.py"
    traced.write_text("def f(x):\n    if x:\n        return 1\n    return 2\n\n\nf(1)\n")
    data = tmp_path / ".coverage"
    run = [sys.executable, "-m", "coverage", "run", "--rcfile=", f"--data-file={data}", str(traced)]
    subprocess.run(run, check=True, cwd=tmp_path)
    told = subprocess.run(
        [sys.executable, str(repo / "tools" / "least_covered.py")], cwd=tmp_path, capture_output=True, text=True
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[0] == "coverage: 80.0 % of 5 statements; least covered:"
    assert told.stdout.splitlines()[1].endswith("traced.py (1 of 5 not run)")


def test_a_folder_without_data_is_told(tmp_path, repo):
    told = subprocess.run(
        [sys.executable, str(repo / "tools" / "least_covered.py")], cwd=tmp_path, capture_output=True, text=True
    )
    assert told.returncode == 1 and "least_covered: No data" in told.stderr
