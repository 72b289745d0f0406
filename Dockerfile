# valgap for processors without a GPU. Build and use: docs/ci.md.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
# Where torch and torchvision come from: wheels for CPUs alone, a tenth of the size. Empty: pip's own index.
ARG WHEELS=https://download.pytorch.org/whl/cpu
# Extras of pyproject.toml, in brackets: [cpu,parquet]
ARG EXTRAS=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/valgap
RUN /opt/valgap/bin/pip install ${WHEELS:+--index-url "$WHEELS"} torch torchvision
COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN /opt/valgap/bin/pip install "/source${EXTRAS}"

FROM python:${PYTHON}-slim
COPY --from=build /opt/valgap /opt/valgap
# Whoever runs it, as with --user, may write the caches in this home.
RUN useradd --uid 1000 --create-home valgap && chmod 1777 /home/valgap
ENV PATH=/opt/valgap/bin:$PATH HOME=/home/valgap PYTHONUNBUFFERED=1
USER valgap
WORKDIR /work
ENTRYPOINT ["valgap"]
CMD ["--help"]
