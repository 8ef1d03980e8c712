"""What the sparse-activation page asks of the store: answers, and what is stored layer by layer."""

from __future__ import annotations

import pandas as pd

from backend.results import queries
from backend.results.store import Store


def answer_evaluations(store: Store) -> pd.DataFrame:
    """Return on what questions answers were compared, those with most cells first.

    Columns: model, model_sha256, text, text_sha256, questions, max_tokens, form, prompt, dtype, cells.
    """
    return store.frame(
        """
        SELECT max(model) AS model, model_sha256, max(text) AS text, text_sha256,
               TRY_CAST(evaluation ->> '$.questions' AS BIGINT) AS questions,
               TRY_CAST(evaluation ->> '$.max_tokens' AS BIGINT) AS max_tokens,
               evaluation ->> '$.form' AS form, evaluation ->> '$.prompt' AS prompt, dtype, count(*) AS cells
        FROM cells SEMI JOIN results USING (cell_id)
        WHERE evaluation ->> '$.kind' = 'answers'
        GROUP BY model_sha256, text_sha256, questions, max_tokens, form, evaluation ->> '$.prompt', dtype
        ORDER BY cells DESC, model, text, questions, form, dtype
        """
    )


def answer_points(
    store: Store,
    *,
    model_sha256: str,
    text_sha256: str,
    questions: int,
    max_tokens: int,
    form: str,
    prompt: str,
    dtype: str = "float32",
) -> pd.DataFrame:
    """Return one row a cell of one evaluation of answers, with the columns of :func:`queries.points`.

    Args:
        store: The store.
        model_sha256: Hash of the weights.
        text_sha256: Hash of the questions' file.
        questions: Number of questions.
        max_tokens: Longest dense answer.
        form: ``forced`` or ``free``.
        prompt: ``chat`` or ``instruct``.
        dtype: Precision.
    """
    asked = {"questions": questions, "max_tokens": max_tokens, "form": form, "prompt": prompt}
    given = {name: str(value) for name, value in asked.items()}
    same = " AND ".join(f"evaluation ->> '$.{name}' = ${name}" for name in given)
    given |= {"model": model_sha256, "text": text_sha256, "dtype": dtype}
    same += " AND model_sha256 = $model AND text_sha256 = $text AND dtype = $dtype"
    cells = store.rows(
        f"""
        SELECT cell_id FROM cells
        WHERE evaluation ->> '$.kind' = 'answers' AND {same}
        """,
        given,
    )
    return queries.points(store, cell_ids=[cell for (cell,) in cells])


def layer_values(store: Store, metric: str, model_sha256: str | None = None) -> pd.DataFrame:
    """Return a metric that is stored layer by layer, one row a cell and layer, of the latest results.

    Args:
        store: The store.
        metric: ``rank_correlation`` or ``top_overlap``.
        model_sha256: Only this model's.

    Returns:
        Columns: cell_id, run_id, model, model_sha256, policy, settings, text, text_sha256, evaluation, dtype,
        how, layer, value, stderr, n.
    """
    given = {"pattern": f"^{metric}_([0-9]+)$"}
    only = ""
    if model_sha256 is not None:
        given["model"] = model_sha256
        only = "AND c.model_sha256 = $model"
    return store.frame(
        f"""
        SELECT c.cell_id, m.run_id, c.model, c.model_sha256, c.policy, c.settings::VARCHAR AS settings,
               c.text, c.text_sha256, c.evaluation::VARCHAR AS evaluation, c.dtype, m.how,
               regexp_extract(m.metric, $pattern, 1)::BIGINT AS layer, m.value, m.stderr, m.n
        FROM measurements m SEMI JOIN latest USING (cell_id, run_id) JOIN cells c USING (cell_id)
        WHERE regexp_matches(m.metric, $pattern) {only}
        ORDER BY c.policy, settings, c.cell_id, layer
        """,
        given,
    )
