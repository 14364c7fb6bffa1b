from nailseg.evaluation import plots


def test_curves_have_whole_epochs(tmp_path) -> None:
    table = tmp_path / "metrics.csv"
    table.write_text("epoch,train/loss,val/loss,val/dice_nail\n0,1,1,0.1\n1,0.5,0.6,0.4\n")
    text = plots.plot_training_curves(table)
    assert text.count("<svg") == 2
    assert ">1.5<" not in text, "no half epochs"


def test_reliability_diagrams_of_empty_classes() -> None:
    nothing = {"ece": None, "reliability": []}
    assert plots.plot_reliability({"nail": nothing, "finger": nothing}).count("<svg") == 2
