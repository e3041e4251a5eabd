"""Settings: the environment (``VOXPORT_*``, ``__`` between levels), then secret files, then a YAML file."""

from __future__ import annotations

import os
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    FilePath,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from .domain.errors import UsageError

_SHORTEST_SECRET = 24


class OnnxSettings(BaseModel, extra="forbid"):
    """ONNX Runtime: execution providers in order, each with its options, and session options."""

    providers: list[str] = ["CPUExecutionProvider"]
    provider_options: dict[str, dict[str, str]] = Field(default_factory=dict)
    arena: bool = False
    graph_level: Literal["none", "basic", "extended", "all"] = "all"
    cache: Path | None = None


class OpenvinoSettings(BaseModel, extra="forbid"):
    """OpenVINO: number of tiles inferred in parallel, and a folder for compiled networks."""

    streams: int = Field(default=1, gt=0)
    cache: Path | None = None


class TorchSettings(BaseModel, extra="forbid"):
    """PyTorch: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA if available."""

    device: str = "cpu"


class BoundsSettings(BaseModel, extra="forbid"):
    """Minimum agreement of labels with fp32 and the card's patch, for other precisions and patches."""

    label_agreement: float = Field(default=0.999, ge=0, le=1)
    dice: float = Field(default=0.999, ge=0, le=1)


class ServingSettings(BaseModel, extra="forbid"):
    """The REST service: its limits, and whether it has MONAI Label's routes too.

    ``slots`` cases run at once and ``queue`` more may wait, in each of ``workers`` processes. ``memory_bytes``
    is the limit of one case; by default the slots share half of the free memory.
    """

    slots: int = Field(default=1, gt=0)
    queue: int = Field(default=16, ge=0)
    workers: int = Field(default=1, gt=0)
    memory_bytes: int | None = Field(default=None, gt=0)
    time_limit_seconds: float = Field(default=600.0, gt=0)
    max_body_bytes: int = Field(default=2 * 2**30, gt=0)
    predict_max_voxels: int = Field(default=2**22, gt=0)
    rate_per_minute: int = Field(default=0, ge=0)
    look_for_models_seconds: float = Field(default=5.0, gt=0)
    silence_seconds: float = Field(default=30.0, gt=0)
    drain_seconds: float = Field(default=20.0, gt=0)
    public_url: str | None = None
    cors_origins: list[str] = []
    trust_forwarded_prefix: bool = False
    insecure: bool = False
    monailabel: bool = False


class JobsSettings(BaseModel, extra="forbid"):
    """Jobs: storage, workers, limits, retention, and where callbacks may go.

    ``database`` is an SQLite file or a Postgres URL, ``blobs`` a folder or an fsspec URL. ``worker``: the service
    runs jobs itself.
    """

    database: str = Field(default_factory=lambda: f"sqlite:///{data_home() / 'jobs' / 'jobs.sqlite'}")
    blobs: str = Field(default_factory=lambda: str(data_home() / "jobs" / "blobs"))
    worker: bool = True
    concurrency: int = Field(default=1, gt=0)
    length: int = Field(default=1000, ge=0)
    strikes: int = Field(default=3, gt=0)
    lease_seconds: float = Field(default=15.0, gt=0)
    backoff_seconds: float = Field(default=2.0, gt=0)
    keep_every_seconds: float = Field(default=10.0, ge=0)
    retention_seconds: float = Field(default=7 * 86400.0, gt=0)
    sweep_every_seconds: float = Field(default=60.0, gt=0)
    callback_origins: list[str] = []
    callback_secret: SecretStr | None = None
    callback_private: bool = False

    @model_validator(mode="after")
    def _has_a_secret(self) -> JobsSettings:
        """Check that callbacks can be signed."""
        secret = b""
        with suppress(ValueError):
            text = "" if self.callback_secret is None else self.callback_secret.get_secret_value()
            secret = b64decode(text.removeprefix("whsec_"), validate=True)
        if self.callback_origins and len(secret) < _SHORTEST_SECRET:
            expected = f"callback_secret of {_SHORTEST_SECRET} bytes or more in base64, beside callback_origins"
            raise ValueError(f"expected a {expected}; make one with: openssl rand -base64 32")
        return self


class ClusterSettings(BaseModel, extra="forbid"):
    """Where volumes are segmented in blocks: ``local`` (this process), ``local:N`` or a Dask scheduler's address.

    ``block`` is the edge of blocks in voxels. ``folder``, which all workers reach, takes the folders of runs in place
    of the masks' own. A worker that is on a block for ``patience_seconds`` is taken for hung.
    """

    address: str | None = None
    block: int | None = Field(default=None, gt=0)
    attempts: int = Field(default=3, gt=0)
    patience_seconds: float = Field(default=1800.0, gt=0)
    folder: Path | None = None


class DemoSettings(BaseModel, extra="forbid"):
    """The demo: its largest upload, its address behind a proxy, and when a session ends: idle, or without a page."""

    max_upload_bytes: int = Field(default=2 * 2**30, gt=0)
    idle_seconds: float = Field(default=3600.0, gt=0)
    keep_seconds: float = Field(default=60.0, ge=0)
    public_url: str | None = None
    trust_forwarded_prefix: bool = False


class DicomPeerSettings(BaseModel, extra="forbid"):
    """Where masks go: by C-STORE to ``aet`` at ``host`` and ``port``, or by STOW-RS to ``url`` with a ``token``."""

    aet: str | None = Field(default=None, min_length=1, max_length=16)
    host: str | None = None
    port: int = Field(default=104, gt=0, le=65535)
    url: str | None = None
    token: SecretStr | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> DicomPeerSettings:
        """Check that the peer can be reached in one way."""
        by_name, by_url = self.aet is not None and self.host is not None, self.url is not None
        if by_name == by_url or (by_url and not (self.url or "").startswith(("http://", "https://"))):
            raise ValueError("expected aet and host, or the url of a DICOMweb service")
        return self


class DicomSenderSettings(BaseModel, extra="forbid"):
    """Who may send: an application entity title (any if left out) at an address or network."""

    aet: str = Field(default="", max_length=16)
    address: IPvAnyNetwork


class DicomRuleSettings(BaseModel, extra="forbid"):
    """Which series go to a model (the default model if left out), and to which peer their masks go."""

    send_to: str
    model: str | None = None
    modality: str = ""
    description: str = ""
    body_part: str = ""


class DicomSettings(BaseModel, extra="forbid"):
    """The DICOM node: who may send, what happens to each series, and its limits."""

    aet: str = Field(default="VOXPORT", min_length=1, max_length=16)
    senders: list[DicomSenderSettings] = []
    peers: dict[str, DicomPeerSettings] = {}
    rules: list[DicomRuleSettings] = []
    quiet_seconds: float = Field(default=15.0, gt=0)
    keep_seconds: float = Field(default=3600.0, ge=0)
    silence_seconds: float = Field(default=30.0, gt=0)
    associations: int = Field(default=16, gt=0)
    receive_bytes: int = Field(default=2 * 2**30, gt=0)

    @model_validator(mode="after")
    def _names_its_peers(self) -> DicomSettings:
        """Check that every peer of a rule is one."""
        for rule in self.rules:
            if rule.send_to not in self.peers:
                raise ValueError(f"expected send_to as one of the peers {', '.join(self.peers) or '(there are none)'}")
        return self


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(env_prefix="VOXPORT_", env_nested_delimiter="__", extra="forbid")

    model: str = "two-photon-vessels"
    store: Literal["folder", "bento"] = "folder"
    models_dir: Path = Field(default_factory=lambda: data_home() / "models")
    bentoml_home: Path | None = None
    scratch_dir: Path | None = None
    max_voxels: int = Field(default=2**33, gt=0)
    require_signed: FilePath | None = None
    threads: int | None = Field(default=None, gt=0)
    onnx: OnnxSettings = OnnxSettings()
    openvino: OpenvinoSettings = OpenvinoSettings()
    torch: TorchSettings = TorchSettings()
    bounds: BoundsSettings = BoundsSettings()
    tunings_dir: Path = Field(default_factory=lambda: data_home() / "tunings")
    api_keys: Annotated[list[SecretStr], NoDecode] = Field(default_factory=list)
    api_key: SecretStr | None = None
    serving: ServingSettings = ServingSettings()
    jobs: JobsSettings = Field(default_factory=JobsSettings)
    cluster: ClusterSettings = ClusterSettings()
    demo: DemoSettings = DemoSettings()
    dicom: DicomSettings = DicomSettings()

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        """Split keys from the environment at commas."""
        return [key.strip() for key in value.split(",") if key.strip()] if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of sources: arguments, environment, secret files, YAML file."""
        folder = os.environ.get("VOXPORT_SECRETS_DIR") or None
        secrets = NestedSecretsSettingsSource(file_secret_settings, folder, secrets_dir_missing="error")
        return init_settings, env_settings, secrets, YamlConfigSettingsSource(settings_cls, settings_file())


def settings_file() -> Path:
    """Return the YAML file: ``VOXPORT_SETTINGS_FILE``, or ``voxport/settings.yaml`` in the configuration folder."""
    named = os.environ.get("VOXPORT_SETTINGS_FILE")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(named) if named else home / "voxport" / "settings.yaml"


def load_settings(**given: Any) -> Settings:
    """Load the settings; ``given`` values take precedence.

    Raises:
        UsageError: names every invalid setting.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].lower()}" for problem in error.errors()
        )
    except SettingsError as error:
        problems = str(error)
    raise UsageError(
        "settings", expected="valid VOXPORT_* variables, secrets and settings file", got=problems, do="correct them"
    )


def data_home() -> Path:
    """Return the user's data folder: ``voxport`` in ``XDG_DATA_HOME``, or in ``~/.local/share``."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return home / "voxport"
