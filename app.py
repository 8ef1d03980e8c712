"""Sparsity Lens in the browser: ``streamlit run app.py``."""

from __future__ import annotations

import streamlit as st

from pages._shared.navigation import by_app

st.set_page_config(page_title="Sparsity Lens", page_icon="🔎", layout="wide", initial_sidebar_state=220)
current = st.navigation(
    [
        st.Page("pages/home.py", title="Home", icon=":material/home:", default=True),
        st.Page("pages/trade_offs.py", title="Trade-offs", icon=":material/monitoring:"),
        st.Page("pages/sparse_activation.py", title="Sparse activation", icon=":material/bolt:"),
        st.Page("pages/dip_memory.py", title="DIP and memory", icon=":material/memory:"),
        st.Page("pages/mixture_of_experts.py", title="Mixture of experts", icon=":material/hub:"),
        st.Page("pages/runs.py", title="Runs", icon=":material/play_circle:"),
        st.Page("pages/paper.py", title="Paper", icon=":material/article:"),
        st.Page("pages/methods.py", title="Methods", icon=":material/function:"),
    ]
)
with by_app():
    current.run()
