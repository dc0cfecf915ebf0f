"""The connector's name among those that vLLM knows."""


def register() -> None:
    """Makes "RepriseConnector" a name that vLLM knows. Again does nothing."""
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    name = "RepriseConnector"
    if name not in KVConnectorFactory._registry:
        KVConnectorFactory.register_connector(name, "reprise_vllm.connector", name)
