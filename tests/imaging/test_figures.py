from nailseg.imaging.figures import new_figure, to_svg


def test_equal_figures_give_equal_svg() -> None:
    def draw() -> str:
        figure, (axis,) = new_figure()
        axis.plot([0, 1], [1, 0])
        return to_svg(figure)

    assert draw() == draw()


def test_axes_form_a_grid() -> None:
    figure, axes = new_figure(columns=2, rows=3, width=2, height=1)
    assert len(axes) == 6
    assert tuple(figure.get_size_inches()) == (4, 3)
