from nailseg.imaging.figures import new_figure, plot_latencies, to_svg


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


def test_latencies_show_every_form_and_thread_count() -> None:
    rows = [
        {"form": form, "threads": threads, "median": 10.0, "p95": 12.0}
        for form in ("torch", "onnx")
        for threads in (1, 2)
    ]
    svg = plot_latencies(rows)
    for text in ("torch", "onnx", "1 thread<", "2 threads<"):
        assert text in svg
