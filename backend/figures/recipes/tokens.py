"""The kind of panel that shows a generated text, its tokens coloured by what was measured of them."""

from __future__ import annotations

from typing import Literal

from backend.errors import UserError
from backend.figures.generations import colours_of, side_label, strip_spec
from backend.figures.recipes.panels import PanelRecipe, Stored, recipe
from backend.figures.spec import FigureSpec
from backend.registry import did_you_mean
from backend.results.generations import generation, generation_runs
from backend.settings import setting


@recipe("token_strip")
class TokenStripRecipe(PanelRecipe):
    """A generated text, token by token, each on the colour of its value."""

    run: str | None = setting(None, "The generation's run; by default the newest.")
    prompt: int = setting(1, "Which prompt of the run, from 1.", ge=1)
    side: int = setting(1, "0 for dense, then the policies in order.", ge=0, le=3)
    form: Literal["free", "forced"] = setting(
        "forced", "free: the side's own text; forced: the policy scored on the dense model's text."
    )
    colour: str = setting(
        "kl", "kl, delta_logprob, dense_rank, mlp_density, or a column of the policy's own."
    )

    def draw(self, stored: Stored) -> FigureSpec:
        """Return the strip.

        Raises:
            UserError: There is no such generation, prompt, side or column.
        """
        run = self.run
        if run is None:
            runs = generation_runs(stored.store)
            if runs.empty:
                raise UserError("No generation is stored; `python -m backend generate` writes one.")
            run = str(runs["run_id"].iloc[0])
        shown = generation(stored.store, run, self.prompt - 1)
        if shown is None:
            raise UserError(f"There is no prompt {self.prompt} in a generation '{run}'.")
        if self.side >= len(shown.sides):
            names = ", ".join(f"{side.number} ({side_label(side)})" for side in shown.sides)
            raise UserError(f"The generation has no side {self.side}; it has {names}.")
        known = {colour.name: colour for colour in colours_of(shown)}
        if self.colour not in known:
            raise UserError(f"Tokens have no value '{self.colour}'; {did_you_mean(self.colour, list(known))}")
        spec = strip_spec(shown, shown.sides[self.side], self.form, known[self.colour])
        if spec.strip is None or not spec.strip.tokens:
            raise UserError(f"{side_label(shown.sides[self.side])} has no {self.form} text in '{run}'.")
        return spec
