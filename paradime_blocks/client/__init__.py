from paradime_blocks.client.auth import auth_for
from paradime_blocks.client.bolt_client import BoltClient
from paradime_blocks.client.connection_settings import ConnectionSettings

__all__ = ["BoltClient", "ConnectionSettings", "auth_for"]
