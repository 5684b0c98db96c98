"""S3AccessHook: from Airflow's connections of type ``aws`` to the access that a step reaches S3 by."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_mlops import backend
from airflow_mlops.core.errors import CredentialsError, MissingExtraError, MlopsError, SpecError
from airflow_mlops.core.extras import DISTRIBUTION
from airflow_mlops.core.s3 import SOURCE, S3Access
from airflow_mlops.core.tracking import strip_credentials

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

#: How a bucket may stand in an address.
_STYLES = ("auto", "path", "virtual")


class S3AccessHook(BaseHook):
    """Give the access to S3 that a connection of the Amazon provider describes, an assumed role included.

    Keys and roles become credentials here, once, and travel to the step in its environment. A connection without any
    of them leaves boto3 to find the credentials of the machine, in the step's own process, where they are renewed.

    :param aws_conn_id: a connection of type ``aws``.
    """

    conn_name_attr = "aws_conn_id"
    default_conn_name = "aws_default"
    hook_name = "S3 access"

    def __init__(self, aws_conn_id: str) -> None:
        super().__init__()
        self.aws_conn_id = aws_conn_id

    @cached_property
    def connection(self) -> Connection:
        """The connection, which must exist.

        :raises CannotReachError: if it cannot be had.
        :raises SpecError: if it is of another type.
        """
        found = backend.connection(self.aws_conn_id)
        if found.conn_type != "aws":
            raise SpecError(
                f"the connection {self.aws_conn_id!r} has type {found.conn_type!r}; for S3 it must have type 'aws'"
            )
        return found

    @cached_property
    def access(self) -> S3Access:
        """The access, with credentials where the connection gives any; they are masked in logs.

        :raises MissingExtraError: if the Amazon provider is not installed.
        :raises CredentialsError: if the role cannot be assumed.
        """
        try:
            from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
        except ImportError as error:
            raise MissingExtraError(
                f"the connection {self.aws_conn_id!r} needs Airflow's provider for Amazon, which is not installed "
                f"here; run: pip install '{DISTRIBUTION}[amazon]'",
                library="apache-airflow-providers-amazon",
                extra="amazon",
            ) from error
        # Before the provider's hook asks for it: where it cannot be had, that one goes on with the machine's role.
        connection = self.connection
        hook: Any = AwsGenericHook(aws_conn_id=self.aws_conn_id, client_type="s3")
        config = hook.conn_config
        own = config.aws_access_key_id or config.profile_name or config.role_arn
        credentials = self._credentials(hook) if own else None
        style = (getattr(config.botocore_config, "s3", None) or {}).get("addressing_style")
        verify = connection.extra_dejson.get("verify")
        access = S3Access(
            endpoint_url=config.get_service_endpoint_url("s3") or None,
            region=config.region_name or None,
            key=credentials.access_key if credentials else None,
            secret=credentials.secret_key if credentials else None,
            token=credentials.token if credentials else None,
            verify=verify if isinstance(verify, bool) or (isinstance(verify, str) and verify) else True,
            addressing_style=style if style in _STYLES else None,
        )
        _mask(access)
        return access

    def _credentials(self, hook: Any) -> Any:
        try:
            found = hook.get_session().get_credentials()
            return found.get_frozen_credentials()
        except MlopsError:
            raise
        except Exception as error:
            from airflow_mlops.core.s3 import translate

            where = f"the connection {self.aws_conn_id!r}"
            known = translate(error, where)
            if known is not None and known.retryable:
                raise known from error
            raise CredentialsError(
                f"{where} gives no credentials: {strip_credentials(str(error)).splitlines()[0][:200]}"
                if str(error)
                else f"{where} gives no credentials"
            ) from error

    @property
    def environment(self) -> dict[str, str]:
        """The variable that carries the access to data outside the store."""
        return {SOURCE: self.access.to_json()}

    def get_conn(self) -> Any:
        """Return a boto3 client for S3."""
        return self.access.client()


def _mask(access: S3Access) -> None:
    from airflow.sdk.log import mask_secret

    for secret in (access.secret, access.token):
        if secret:
            mask_secret(secret)
