"""A run that is asked to end: all ranks agree at the end of an optimizer step, save it, and stop."""

from typing import Any

from transformers import TrainerCallback

from rlvr.launch.process_group import stop
from rlvr.preemption import Notice, Preempted
from rlvr.trainer.agree import any_rank


class Preemption(TrainerCallback):
    """Has the trainer save and stop after the step in which any rank was asked to end.

    A step is the unit, because only between steps do weights, optimizer, random generators and counters belong
    together. For the library:

        with rlvr.preemption.caught() as notice:
            RLVRTrainer(..., callbacks=[Preemption(notice)]).train()

    Attributes:
        notice: whether this rank was asked.
        begun: whether there is something to save.
        step: the step that was saved; None where the run was not asked, or had made all its steps.
    """

    def __init__(self, notice: Notice) -> None:
        self.notice = notice
        self.begun = False
        self.step: int | None = None

    def agreed(self) -> bool:
        """Whether any rank was asked to end; called by all together."""
        return any_rank(self.notice.came is not None)

    def leave(self) -> None:
        """Go, together and in order, if this run was asked to end; called by all together before and after training.

        Raises:
            Preempted: where a step was saved for it, or none was begun.
        """
        if self.step is None and (self.begun or not self.agreed()):
            return
        stop()
        asked = f"{self.notice.came or 'a signal to another process'} came"
        if self.step is None:
            raise Preempted(f"{asked} before the first step; nothing is saved: start again")
        raise Preempted(f"{asked}; step {self.step} is the last one and saved: go on with run.resume=true")

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.notice.waits = self.begun = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps or not self.agreed():
            return  # a run that has made its last step saves it anyway, and ends soon
        self.step = state.global_step
        control.should_save = control.should_training_stop = True
