# Sparsity Lens, slim and without root. Build: docker build -t sparsity-lens .
# Run:   docker run -p 8501:8501 -v sparsity-lens:/var/lib/sparsity-lens sparsity-lens
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    SPARSITY_LENS_HOME=/var/lib/sparsity-lens \
    STREAMLIT_SERVER_ADDRESS=0.0.0.0 \
    STREAMLIT_SERVER_FILE_WATCHER_TYPE=none

WORKDIR /opt/sparsity-lens

COPY requirements.txt .
RUN pip install --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' requirements.txt)" \
    && pip install --requirement requirements.txt \
    && useradd --system --uid 10001 --create-home lens \
    && install --directory --owner lens --group lens /var/lib/sparsity-lens

COPY app.py LICENSE CITATION.cff ./
COPY .streamlit .streamlit
COPY backend backend
COPY pages pages
COPY data/seed data/seed
COPY data/sweeps data/sweeps

USER 10001
VOLUME ["/var/lib/sparsity-lens"]
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
CMD ["python", "-m", "streamlit", "run", "app.py"]
