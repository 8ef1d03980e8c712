"""Controls in the address: what is shown and what the address says agree."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest


def _page() -> None:
    import streamlit as st

    from pages._shared.address import Address

    address = Address()
    kind = st.selectbox("Kind", ["a", "b"], key="kind")
    address.choice("Cost", ["x", "y"], "cost", default="x" if kind == "a" else "y")
    address.segments("Form", ["p", "q"], "form", default="p" if kind == "a" else "q")
    address.number("Size", 0.0, 10.0, "size", default=2.0 if kind == "a" else 4.0, step=0.5)
    address.toggle("Log", "log", default=kind == "b")
    address.several("Methods", ["m", "n"], "methods", default=["m"] if kind == "a" else ["m", "n"])
    address.steps("Share", ["0.1", "0.2", "0.4"] if kind == "a" else ["0.2", "0.4"], "share")


def _shown(app: AppTest) -> dict[str, object]:
    widgets = [
        app.selectbox(key="cost"),
        app.radio(key="form"),
        app.slider(key="size"),
        app.toggle(key="log"),
    ]
    widgets += [app.multiselect(key="methods"), app.select_slider(key="share")]
    return {widget.key: widget.value for widget in widgets}


def test_a_value_under_a_changed_default_stands_in_the_address() -> None:
    app = AppTest.from_function(_page).run()
    assert app.query_params == {}
    before = _shown(app)
    app.selectbox(key="kind").set_value("b").run()
    after = _shown(app)
    assert not app.exception
    assert {key: after[key] for key in ("cost", "form", "size", "log", "methods")} == {
        key: before[key] for key in ("cost", "form", "size", "log", "methods")
    }
    said = {key: str(app.query_params[key]) for key in ("cost", "form", "size", "log", "methods")}
    assert (said["cost"], said["form"], said["log"], said["methods"]) == ("x", "p", "false", "m")
    assert float(said["size"]) == 2.0
    again = AppTest.from_function(_page)
    for key, value in said.items():
        again.query_params[key] = value
    again.run()
    again.selectbox(key="kind").set_value("b").run()
    assert _shown(again) == after


def test_an_address_that_says_the_old_value_is_mended() -> None:
    app = AppTest.from_function(_page)
    app.query_params["cost"] = "y"
    app.run()
    assert app.selectbox(key="cost").value == "y"
    app.selectbox(key="cost").set_value("x").run()  # no browser here that takes it out of the address
    assert "cost" not in app.query_params


def test_a_value_that_is_no_longer_offered_gives_way() -> None:
    app = AppTest.from_function(_page).run()
    app.select_slider(key="share").set_value("0.4").run()
    app.selectbox(key="kind").set_value("b").run()
    assert app.select_slider(key="share").value == "0.4"
    app.selectbox(key="kind").set_value("a").run()
    app.select_slider(key="share").set_value("0.1").run()
    app.selectbox(key="kind").set_value("b").run()
    assert not app.exception
    assert app.select_slider(key="share").value == "0.2"
