"""Iterative pseudo-labelling: the loop.

Seven plug-ins, built anew for every cycle, know each other by what they hand over and by nothing else.
``step`` does each step once: what a killed run has finished is read back when it is started again.
``run.trust`` ends the run where labels have collapsed, before a student learns them.
"""

from raysr.ipl.run import Run


def run_cycles(run: Run) -> None:
    """Turn the loop until the run has the cycles it was configured for, or gets no better."""
    run.look_for_held_out()
    for cycle in range(run.config.run.cycles):
        turn(run, cycle)
        if run.is_over():
            break
    run.finish()


def turn(run: Run, cycle: int) -> None:
    """Label with the best there is, keep what can be trusted, train the next student on it."""
    run.announce(cycle)
    step, plugin = run.steps(cycle), run.plugins(cycle)

    selected = step.selection(lambda: plugin.selector(cycle, run.unlabelled))
    teachers = step.teachers(lambda: plugin.builder(run.pool))
    predicted = step.predictions(lambda: plugin.recogniser(selected, teachers))
    kept = step.decisions(selected, lambda: plugin.filter(predicted))
    run.trust(step.labels(lambda: run.measure(cycle)))
    batches = step.batches(lambda: plugin.batcher(kept, plugin.distiller(run.labelled, kept, teachers)))
    start = step.start(lambda: plugin.initializer(run.pool))
    student = step.student(run.pool, lambda: plugin.trainer(start, batches))

    run.report(step.report(lambda: run.score(cycle, student)))
