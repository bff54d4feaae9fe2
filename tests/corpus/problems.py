"""What an import complains of."""

from raysr.corpus.importers.report import ImportReport


def rows(report: ImportReport) -> dict[str, str]:
    """Return where → kind of all problems, each of them one clear line."""
    for problem in report.problems:
        assert problem.reason
        assert "\n" not in problem.reason + problem.where
    return {problem.where: problem.kind for problem in report.problems}
