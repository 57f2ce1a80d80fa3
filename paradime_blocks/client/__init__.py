from paradime_blocks.client.bolt_client import BoltClient

__all__ = ["BoltClient"]
