"""What Airflow reads of this provider. Imports nothing."""

from __future__ import annotations

from typing import Any

_MLFLOW_FIELDS = {
    "token": {
        "label": "Token",
        "schema": {"type": ["string", "null"], "format": "password"},
        "description": "Bearer token, instead of login and password.",
    },
    "registry_uri": {
        "label": "Registry URI",
        "schema": {"type": ["string", "null"]},
        "description": "Address of the model registry, if it is another server. The same credentials are used.",
    },
    "ui_url": {
        "label": "UI address",
        "schema": {"type": ["string", "null"]},
        "description": "Where people open MLflow in a browser, if that is another address. Links lead there.",
    },
    "insecure_tls": {
        "label": "Accept any TLS certificate",
        "schema": {"type": ["boolean", "null"], "default": False},
        "description": "Do not verify the server's certificate. For tests only.",
    },
    "server_cert_path": {
        "label": "CA bundle",
        "schema": {"type": ["string", "null"]},
        "description": "File of the certificate authority that signed the server's certificate, on every worker.",
    },
    "client_cert_path": {
        "label": "Client certificate",
        "schema": {"type": ["string", "null"]},
        "description": "File with the client's certificate and key, on every worker.",
    },
    "timeout": {
        "label": "Timeout (s)",
        "schema": {"type": ["integer", "null"], "minimum": 1},
        "description": "Seconds to wait for an answer. Default: 30.",
    },
}

_SERVER_FIELDS = {
    "backend": {
        "label": "Back end",
        "schema": {"type": ["string", "null"], "enum": ["processes", "docker", None]},
        "description": "``processes``: ``airflow mlops serve`` on this machine. ``docker``: containers of an engine.",
    },
    "gateway_folder": {
        "label": "Gateway's folder",
        "schema": {"type": ["string", "null"]},
        "description": "With ``docker``: the folder with the gateway's configuration and socket, as workers see it.",
    },
    "image": {
        "label": "Image",
        "schema": {"type": ["string", "null"]},
        "description": "With ``docker``: the image that models run in. It has MLflow and what the models import.",
    },
    "network": {
        "label": "Network",
        "schema": {"type": ["string", "null"]},
        "description": "With ``docker``: the network that gateway and servers share. Empty: ports on loopback.",
    },
    "docker_conn_id": {
        "label": "Docker connection",
        "schema": {"type": ["string", "null"]},
        "description": "With ``docker``: connection of type ``docker``. Default: ``docker_default``.",
    },
    "user": {
        "label": "User",
        "schema": {"type": ["string", "null"]},
        "description": "With ``docker``: uid:gid that servers run as. Default: those of the worker.",
    },
    "memory": {
        "label": "Memory",
        "schema": {"type": ["string", "null"]},
        "description": "With ``docker``: the most that a server may take, such as 2g.",
    },
    "metrics": {
        "label": "Metrics",
        "schema": {"type": ["string", "null"]},
        "description": "Servers of somebody else: URL or path of their Prometheus metrics, read with login and "
        "password, or with a password alone as bearer token. They can be monitored, not deployed to.",
    },
}

_OPTIONS = {
    "backend": {
        "description": "Where models and the store are: ``embedded`` (MLflow on SQLite and a folder, on this machine) "
        "or ``connections`` (the connections named below). It is never inferred from a connection that is missing.",
        "version_added": "0.1.0",
        "type": "string",
        "example": "connections",
        "default": "embedded",
    },
    "home": {
        "description": "Folder of the embedded back end. Empty: ``mlops`` in Airflow's home.",
        "version_added": "0.1.0",
        "type": "string",
        "example": "/opt/airflow/mlops",
        "default": "",
    },
    "mlflow_conn_id": {
        "description": "Connection of type ``mlflow`` that is used with ``backend = connections``.",
        "version_added": "0.1.0",
        "type": "string",
        "example": None,
        "default": "mlflow_default",
    },
    "store_conn_id": {
        "description": "Connection of the store that is used with ``backend = connections``.",
        "version_added": "0.1.0",
        "type": "string",
        "example": None,
        "default": "mlops_store_default",
    },
    "server_conn_id": {
        "description": "Connection of type ``model_server`` that says where models are served. Empty: with ``backend = "
        "embedded`` processes of this machine, with ``backend = connections`` ``model_server_default``.",
        "version_added": "0.1.0",
        "type": "string",
        "example": None,
        "default": "",
    },
    "mlflow_ui_url": {
        "description": "Where people open the embedded MLflow in a browser, if somebody runs its UI. Links lead there.",
        "version_added": "0.1.0",
        "type": "string",
        "example": "http://localhost:5000",
        "default": "",
    },
    "runbook_url": {
        "description": "Address of the runbook's page, that of the docs or your own: alerts and failure messages "
        "lead to its entries. Empty: they name its place in the docs.",
        "version_added": "0.1.0",
        "type": "string",
        "example": "https://docs.example.com/mlops/operations/runbook.html",
        "default": "",
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata."""
    return {
        "package-name": "airflow-provider-mlops",
        "name": "MLOps",
        "description": "Data validation, training, model testing, registry promotion and drift checks.",
        "integrations": [
            {
                "integration-name": "MLOps",
                "external-doc-url": "https://ml-ops.org/",
                "tags": ["ml"],
            },
            {
                "integration-name": "MLflow",
                "external-doc-url": "https://mlflow.org/docs/latest/",
                "tags": ["ml"],
            },
            {
                "integration-name": "Great Expectations",
                "external-doc-url": "https://docs.greatexpectations.io/",
                "tags": ["data"],
            },
        ],
        "operators": [
            {
                "integration-name": "MLOps",
                "python-modules": [
                    "airflow_mlops.operators.alerting",
                    "airflow_mlops.operators.approval",
                    "airflow_mlops.operators.code",
                    "airflow_mlops.operators.data",
                    "airflow_mlops.operators.drift",
                    "airflow_mlops.operators.evaluation",
                    "airflow_mlops.operators.image",
                    "airflow_mlops.operators.performance",
                    "airflow_mlops.operators.prediction",
                    "airflow_mlops.operators.registry",
                    "airflow_mlops.operators.retraining",
                    "airflow_mlops.operators.service",
                    "airflow_mlops.operators.serving",
                    "airflow_mlops.operators.training",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": "MLOps",
                "python-modules": [
                    "airflow_mlops.sensors.code",
                    "airflow_mlops.sensors.data",
                    "airflow_mlops.sensors.registry",
                    "airflow_mlops.sensors.rows",
                    "airflow_mlops.sensors.serving",
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": "MLOps",
                "python-modules": [
                    "airflow_mlops.triggers.code",
                    "airflow_mlops.triggers.data",
                    "airflow_mlops.triggers.docker",
                    "airflow_mlops.triggers.registry",
                    "airflow_mlops.triggers.rows",
                    "airflow_mlops.triggers.serving",
                ],
            }
        ],
        "hooks": [
            {
                "integration-name": "MLOps",
                "python-modules": [
                    "airflow_mlops.hooks.git",
                    "airflow_mlops.hooks.model_server",
                    "airflow_mlops.hooks.s3",
                    "airflow_mlops.hooks.sql",
                    "airflow_mlops.hooks.store",
                ],
            },
            {"integration-name": "MLflow", "python-modules": ["airflow_mlops.hooks.mlflow"]},
            {"integration-name": "Great Expectations", "python-modules": ["airflow_mlops.hooks.great_expectations"]},
        ],
        "connection-types": [
            {
                "connection-type": "mlflow",
                "hook-class-name": "airflow_mlops.hooks.mlflow.MLflowHook",
                "hook-name": "MLflow",
                "conn-fields": _MLFLOW_FIELDS,
                "ui-field-behaviour": {
                    "hidden-fields": [],
                    "relabeling": {"schema": "Scheme"},
                    "placeholders": {
                        "host": "mlflow.example.com",
                        "port": "5000",
                        "schema": "https",
                        "login": "with a password, or leave both empty and give a token",
                    },
                },
            },
            {
                "connection-type": "model_server",
                "hook-class-name": "airflow_mlops.hooks.model_server.ModelServerHook",
                "hook-name": "Model server",
                "conn-fields": _SERVER_FIELDS,
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {},
                    "placeholders": {"host": "gateway.example.com", "port": "8600"},
                },
            },
        ],
        "cli": ["airflow_mlops.cli.definition.get_mlops_cli_commands"],
        "config": {"mlops": {"description": "MLOps provider: where models and the store are.", "options": _OPTIONS}},
        "extra-links": [
            "airflow_mlops.links.model.ReportLink",
            "airflow_mlops.links.model.ModelCardLink",
            "airflow_mlops.links.model.MLflowRunLink",
            "airflow_mlops.links.model.ModelVersionLink",
        ],
        "task-decorators": [
            {"name": "train_model", "class-name": "airflow_mlops.decorators.training.train_model_task"},
            {"name": "evaluate_model", "class-name": "airflow_mlops.decorators.evaluation.evaluate_model_task"},
        ],
        "notifications": ["airflow_mlops.notifications.gate.GateNotifier"],
        # The plugin is announced by its entry point alone: named here too, Airflow would load it twice where providers
        # are not discovered lazily, and show an import error for the second.
    }
