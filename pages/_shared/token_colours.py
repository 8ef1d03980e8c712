"""What colours the tokens of strips: a control and its legend, which recolour in the browser at once.

The strips on a page hold all of their colourings (:mod:`pages._shared.token_strip`). A choice colours them
where they are; the server hears of it afterwards, for the address and the files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from backend.figures.heat_map import ColourScale
from backend.figures.strip_files import legend_html

_HTML = """
<div class="by">
  <label><span class="name"></span><span class="field"><select></select></span></label>
  <div class="legend"></div>
</div>
"""
_CSS = """
.by { display: flex; flex-wrap: wrap; align-items: end; gap: 0.5rem 1.5rem; font-family: var(--st-font);
  color: var(--st-text-color); }
label { display: flex; flex-direction: column; gap: 0.25rem; font-size: 0.875rem; flex: 0 1 15rem; }
.field { position: relative; }
.field::after { content: ""; position: absolute; right: 0.9rem; top: 0.95rem; width: 0.4rem; height: 0.4rem;
  border: solid; border-width: 0 2px 2px 0; transform: rotate(45deg); pointer-events: none; }
select { font: inherit; width: 100%; height: 2.5rem; padding: 0 2rem 0 0.5rem; appearance: none;
  color: inherit; background: var(--st-secondary-background-color); border-radius: var(--st-base-radius);
  border: 1px solid var(--st-border-color); cursor: pointer; text-overflow: ellipsis; }
select:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 0; }
option { color: var(--st-text-color); background: var(--st-background-color); }
.legend { flex: 1 1 17rem; min-height: 2.5rem; display: flex; align-items: center; }
"""
_JS = """
export default function ({ parentElement, data, setTriggerValue }) {
  const box = parentElement.querySelector(".by"), select = box.querySelector("select");
  box.querySelector(".name").textContent = data.label;
  box.legends = data.legends;
  const names = Object.keys(data.legends), offered = JSON.stringify(names);
  if (box.offered !== offered) {
    box.offered = offered;
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    box.made = data.heard;
  }
  // What the server says counts once it has heard of every choice made here: it may answer an older one.
  if (data.heard >= box.made) select.value = data.chosen;
  select.onchange = () => {
    box.made += 1;
    show(box, select.value);
    setTriggerValue("chosen", { name: select.value, made: box.made });
  };
  show(box, select.value);
}

function show(box, name) {
  const legend = box.querySelector(".legend"), drawn = box.legends[name] ?? "";
  if (box.drawn !== drawn) legend.innerHTML = box.drawn = drawn;
  document.body.dataset.tokenColour = name;
  document.dispatchEvent(new Event("token-colour"));
}
"""
_component = st.components.v2.component("token_colours", html=_HTML, css=_CSS, js=_JS)


def colour_control(
    label: str, scales: Sequence[ColourScale], chosen: str, key: str, *, on_choose: Callable[[str], None]
) -> None:
    """Show the control and the legend of what it says.

    Args:
        label: What the control is called.
        scales: What can be chosen, by their labels: the names of the strips' colourings.
        chosen: The label that is in force.
        key: Names it on its page.
        on_choose: Told the label that is chosen.
    """
    heard = f"{key}_heard"

    def choose() -> None:
        said = getattr(st.session_state[key], "chosen", None) or {}
        st.session_state[heard] = said.get("made", 0)
        if said.get("name") in legends:
            on_choose(said["name"])

    legends = {scale.label: legend_html(scale) for scale in scales}
    data = {
        "label": label,
        "legends": legends,
        "chosen": chosen,
        "heard": st.session_state.get(heard, 0),
    }
    _component(key=key, data=data, on_chosen_change=choose)
