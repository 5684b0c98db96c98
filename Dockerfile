# One image for Airflow and for the MLflow server: their libraries are the same, so both see the same versions.
# It builds with the classic builder as with BuildKit.

# In production: by digest, python:3.12-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.12-slim-bookworm
FROM ${PYTHON_IMAGE}

# What libraries need from the system (LightGBM libgomp1), and git for DAG bundles. Empty: the base image has it all.
ARG APT_PACKAGES="git libgomp1"
RUN if [ -n "${APT_PACKAGES}" ]; then \
      apt-get update \
      && apt-get install --yes --no-install-recommends ${APT_PACKAGES} \
      && rm -rf /var/lib/apt/lists/*; \
    fi

# No process runs as root. Group 0 may write what the user may: some platforms choose the user id themselves.
RUN useradd --uid 50000 --gid 0 --home-dir /opt/airflow --create-home --shell /usr/sbin/nologin airflow \
    && mkdir -p /opt/airflow/dags /opt/airflow/logs /opt/airflow/flights /opt/airflow/gateway \
    && chown -R airflow:0 /opt/airflow \
    && chmod -R g=u /opt/airflow

ENV AIRFLOW_HOME=/opt/airflow \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=true \
    GX_ANALYTICS_ENABLED=false

# The libraries before the provider's own code, which changes more often: this layer stays as it is meanwhile.
ARG EXTRAS=all,examples,stack
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir -p provider/airflow_mlops \
    && echo '__version__ = "0"' > provider/airflow_mlops/__init__.py \
    && python3 -m pip install --constraint constraints.txt ".[${EXTRAS}]" \
    && python3 -m pip uninstall --yes airflow-provider-mlops \
    && rm -r provider
COPY provider provider
RUN python3 -m pip install --no-deps . && rm -rf /build/*
COPY deploy/image/stack.py /opt/stack/stack.py

WORKDIR /opt/airflow
USER airflow
# Says what it can do; the Compose file gives each container its command.
CMD ["python3", "/opt/stack/stack.py", "--help"]
