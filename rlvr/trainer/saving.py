"""Checkpoints of the trainer: written aside, agreed upon by all ranks, committed as a whole, checked when read.

What is in one: TRL's files, and `rlvr_state_{rank}.pt`. How it becomes one: `rlvr/checkpoints/staging.py`.
"""

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rlvr.checkpoints.layout import checkpoint_name, committed
from rlvr.checkpoints.manifest import Manifest, read_manifest, verify
from rlvr.checkpoints.retention import prune
from rlvr.checkpoints.space import check_space
from rlvr.checkpoints.staging import commit, staged
from rlvr.errors import UserError
from rlvr.launch.agreement import everywhere
from rlvr.launch.status import Disagreement
from rlvr.maths.finite import first_not_finite
from rlvr.trainer import reshape, state
from rlvr.trainer.facts import METRIC, check_facts, damaged, facts_of, library_settings, moments_go_on, wandb_run
from rlvr.trainer.saved_files import engine_of, expected, held_parts, state_bytes
from rlvr.trainer.together import from_lead, is_lead, together

LOG = logging.getLogger("rlvr")


class Saver:
    """Writes and reads the checkpoints of a trainer.

    Attributes:
        trainer: whose.
        keep_last: how many of the latest stay; None for all. TRL's `save_total_limit` for the library.
        keep_best: how many of those with the highest held-out accuracy stay besides.
        allow: names of facts that may differ from those of the checkpoint that a run goes on from.
        run_facts: what the caller says of the run, in the place of what the trainer can tell by itself.
        verified: a checkpoint whose bytes the caller has verified already.

    Raises:
        UserError: for arguments that leave out what a resume needs.
    """

    def __init__(self, trainer: Any) -> None:
        args = trainer.args
        if args.save_only_model:
            raise UserError(
                "save_only_model=true leaves out what a run needs to go on; leave it out, and use `rlvr export` for a "
                "folder with the weights alone"
            )
        self.trainer = trainer
        self.keep_last: int | None = args.save_total_limit or None
        self.keep_best = 0
        args.save_total_limit = None  # TRL would delete in place, and before the next one is whole
        self.allow: list[str] = []
        self.run_facts: dict[str, Any] = {}
        self.verified: Path | None = None
        self._accuracy: tuple[int, float] | None = None
        trainer.adopted = None
        trainer.add_callback(_Continue(trainer))
        callbacks = trainer.callback_handler.callbacks
        callbacks.insert(0, callbacks.pop())  # the others are to see the step that the run goes on from

    def measured(self, accuracy: float) -> None:
        """Held-out accuracy of the weights as they are now."""
        self._accuracy = (self.trainer.state.global_step, accuracy)

    def facts(self) -> dict[str, Any]:
        """What the manifest says of this run, without what changes on the way."""
        if not self.run_facts:
            trainer = self.trainer
            own = facts_of(trainer.ranks.count, engine_of(trainer), trainer.stream.rows, trainer.processing_class)
            self.run_facts = {**own, "settings": library_settings(trainer.args, trainer.algorithm)}
        return self.run_facts

    def save(self, write: Callable[[], None]) -> None:
        """Write a checkpoint of this step; called by all ranks together.

        Args:
            write: TRL's part; writes where `_get_output_dir` says.

        Raises:
            UserError: if weights are not finite, or the disk refuses; nothing is left of this checkpoint then, and the
                others are as they were.
        """
        trainer, step = self.trainer, self.trainer.state.global_step
        checkpoints = Path(trainer.args.output_dir)
        self._check_finite(checkpoints, step)
        facts = self.facts()
        from_lead(lambda: self._make_room(checkpoints))
        with staged(checkpoints, step, is_lead()) as folder:
            everywhere(None)  # the folder is there
            self._write(write, folder)
            final = checkpoints / checkpoint_name(step)
            from_lead(lambda: commit(folder, final, {**facts, **self._current(step)}, expected(trainer, folder)))
        from_lead(partial(self._prune, final))

    def _write(self, write: Callable[[], None], folder: Path) -> None:
        """This rank's files, and a wait for those of the others."""

        def action() -> None:
            trainer, card = self.trainer, self.trainer.create_model_card
            trainer._get_output_dir = lambda trial=None: str(folder.parent)
            # TRL writes its card first, on one rank; failing there, that rank would miss a collective of the others.
            trainer.create_model_card = lambda **_: None
            try:
                write()
                state.save(trainer, folder)
            finally:
                del trainer._get_output_dir
                trainer.create_model_card = card
            card(model_name=Path(trainer.args.output_dir).name)

        if self.trainer.is_deepspeed_enabled or self.trainer.is_fsdp_enabled:
            # The engine meets the other ranks while it writes: who fails there cannot meet them here, and ends at once.
            action()
            everywhere(None)
        else:
            together(action)

    def _current(self, step: int) -> dict[str, Any]:
        known = self._accuracy is not None and self._accuracy[0] == step
        return {METRIC: self._accuracy[1] if known and self._accuracy else None, "wandb_run": wandb_run()}

    def _make_room(self, checkpoints: Path) -> None:
        """The folder, and a look at the disk. Those that exist have their room; the oldest goes after the commit."""
        try:
            checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{checkpoints} cannot be made ({error.strerror}); set run.dir to a writable folder"
            ) from None
        check_space(checkpoints, state_bytes(self.trainer.model), keep=len(committed(checkpoints)))

    def _prune(self, newest: Path) -> None:
        try:
            for path in prune(newest.parent, newest, self.keep_last, self.keep_best, METRIC):
                LOG.info("%s deleted: %s is the newest", path.name, newest.name)
        except OSError as error:
            LOG.warning("an old checkpoint in %s could not be deleted (%s); delete it by hand", newest.parent, error)

    def _check_finite(self, checkpoints: Path, step: int) -> None:
        """Refuse to save weights that are not finite, on every rank where one has such.

        Raises:
            Disagreement: naming the first tensor.
        """
        for rank, name in enumerate(everywhere(first_not_finite(held_parts(self.trainer.model)))):
            if name is not None:
                others = [path.name for path in committed(checkpoints).values()]
                last = f"{others[-1]} is the last one before" if others else "there is no earlier one"
                raise Disagreement(
                    f"{checkpoint_name(step)} is not written: {name} holds numbers that are not finite (rank {rank}); "
                    f"{last}; lower optimizer.learning_rate or optimizer.max_grad_norm and go on from there"
                )

    def resume(self, checkpoint: Path | None) -> str | None:
        """What `trainer.train(resume_from_checkpoint=)` gets, so that it goes on from a checkpoint of any engine.

        Where the engine cannot read it, having another number of ranks, the weights are taken here, and it gets None.
        """
        if checkpoint is None:
            return None
        then, now = from_lead(lambda: self._checked(checkpoint)).facts, self.facts()
        reshape.check_offered(then, now, checkpoint)
        if moments_go_on(then, now):
            return str(checkpoint)
        together(lambda: reshape.adopt(self.trainer, checkpoint))
        return None

    def load(self, checkpoint: Path, load: Callable[[], None]) -> None:
        """Go on from a checkpoint, after a look at whether this run may; called by all ranks together.

        Args:
            checkpoint: the folder.
            load: TRL's part: optimizer and scheduler.

        Raises:
            UserError: if it is damaged, of another run, or lacks a file.
        """
        manifest = from_lead(lambda: self._checked(checkpoint))
        lost = sorted(set(expected(self.trainer, checkpoint, manifest.facts.get("world_size"))) - manifest.files.keys())
        if lost:
            raise UserError(f"{checkpoint} has no {lost[0]}; expected a checkpoint written by this trainer: start anew")
        load()
        reshape.apply_changes(self.trainer, manifest.facts)
        state.load(self.trainer, checkpoint, manifest.facts.get("world_size") == self.trainer.ranks.count)

    def _checked(self, checkpoint: Path) -> Manifest:
        """The manifest, once it is clear that it describes the files and this run."""
        if self.verified is None or checkpoint.resolve() != self.verified.resolve():
            problems = verify(checkpoint)
            if problems:
                raise UserError(damaged(checkpoint, problems))
        manifest = read_manifest(checkpoint)
        check_facts(checkpoint, self.facts(), self.allow)
        return manifest


class _Continue(TrainerCallback):
    """Puts back what `train` has set to zero after the checkpoint was read."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        reshape.go_on(self.trainer)
        state.go_on(self.trainer)


def adopt_wandb(run: str | None) -> None:
    """Have Weights & Biases go on with a run, unless somebody has chosen another one."""
    if run is not None and "WANDB_RUN_ID" not in os.environ:
        os.environ |= {"WANDB_RUN_ID": run, "WANDB_RESUME": "allow"}
