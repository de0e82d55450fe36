from types import SimpleNamespace

import torch

from acs_core.selection.regressor import AttentionIoURegressor
from training.fitting.regression import BestInMemory, EpochLog, FitConfig, RegressionModule


def test_appendix_a_is_the_default():
    model = RegressionModule(AttentionIoURegressor, (28, 28), FitConfig())
    chosen = model.configure_optimizers()
    optimiser, schedule = chosen["optimizer"], chosen["lr_scheduler"]["scheduler"]
    assert type(optimiser).__name__ == "Adam" and type(schedule).__name__ == "CosineAnnealingLR"
    assert (optimiser.defaults["lr"], optimiser.defaults["weight_decay"]) == (3e-4, 1e-4)
    assert schedule.T_max == 100
    assert sum(p.numel() for p in model.regressor.parameters()) == 3_582_721  # table 8
    assert {m.p for m in model.modules() if "Dropout" in type(m).__name__} == {0.3}
    config = FitConfig()
    assert (config.batch, config.patience, config.min_improvement) == (64, 15, 0.001)


def after(epoch, **metrics):
    """A trainer after an epoch, counted from 0."""
    return SimpleNamespace(current_epoch=epoch, callback_metrics={k: torch.tensor(v) for k, v in metrics.items()})


def test_notes_go_on_where_a_checkpoint_ends():
    told = []
    notes = EpochLog(lambda *what: told.append(what), [])
    notes.on_train_epoch_end(after(0, train_mse=0.5, val_mse=0.25, val_mae=0.125, val_r=0.75), None)
    resumed = EpochLog(lambda *what: told.append(what), [])
    resumed.load_state_dict(notes.state_dict())
    resumed.on_train_epoch_end(after(1, train_mse=0.25, val_mse=0.5, val_mae=0.5, val_r=0.5), None)
    assert told == [(1, 0.5, 0.25), (2, 0.25, 0.5)]
    assert [row["epoch"] for row in resumed.rows] == [1, 2] and len(notes.rows) == 1
    assert resumed.rows[0] == {"epoch": 1.0, "train_mse": 0.5, "val_mse": 0.25, "val_mae": 0.125, "val_r": 0.75}


def test_checkpoints_of_earlier_versions_keep_their_notes():
    assert EpochLog(print, []).state_key == "_Notes"


def test_the_best_weights_come_back():
    model = torch.nn.Linear(1, 1)
    best = BestInMemory(model)
    for epoch, (held, value) in enumerate([(0.5, 1.0), (0.25, 2.0), (0.75, 3.0)]):
        torch.nn.init.constant_(model.weight, value)
        best.on_validation_end(after(epoch, val_mse=held), model)
    best.on_fit_end(None, model)
    assert model.weight.item() == 2.0
