"""The extra fields of the connection forms for Airflow 3.1; later versions read the provider's metadata."""

from __future__ import annotations

from typing import Any

from airflow_mlops.get_provider_info import get_provider_info


def form_widgets(conn_type: str) -> dict[str, Any]:
    """Return the fields of a connection type's form as Airflow 3.1 wants them.

    :param conn_type: one of the provider's connection types.
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from wtforms import BooleanField, IntegerField, PasswordField, StringField

    fields = next(
        one["conn-fields"] for one in get_provider_info()["connection-types"] if one["connection-type"] == conn_type
    )
    found = {}
    for name, field in fields.items():
        kind, given = field["schema"]["type"][0], {"label": field["label"], "description": field["description"]}
        if kind == "boolean":
            found[name] = BooleanField(**given)
        elif field["schema"].get("format") == "password":
            found[name] = PasswordField(**given, widget=BS3PasswordFieldWidget())
        elif kind == "integer":
            found[name] = IntegerField(**given, widget=BS3TextFieldWidget())
        else:
            found[name] = StringField(**given, widget=BS3TextFieldWidget())
    return found
