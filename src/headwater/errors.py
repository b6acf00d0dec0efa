"""Every error that Headwater raises on purpose.

    HeadwaterError
    ├── ConfigError          the configuration is wrong: where, what, remedy
    ├── WrongUse             a command was asked in a way that it cannot follow
    │   └── TooLong          what was sent to the console is over its bound
    ├── NotFound             nothing is known under the id that was given
    ├── DataError            the data folder cannot be used as it is
    │   ├── JournalDamaged   a journal file is torn or damaged: file, what is lost, remedy
    │   └── FolderInUse      another process holds it
    ├── JournalFull          the journal has reached its size bound: answer 503
    ├── JournalFailed        a write or fsync failed: nothing of it was acknowledged
    ├── RegistryFailed       the registry could not answer durably
    ├── StoreError           the store refused or did not answer
    ├── QueryRefused         a user's SQL is not read-only, or crossed a bound
    └── Forbidden            the console's token does not reach that far

A vendor's answer to bad input is no exception: decoders return it (see
:class:`headwater.accept.request.Answer`).
"""


class HeadwaterError(Exception):
    """Base of all; `remedy` says what to do, in words."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} - {self.remedy}" if self.remedy else self.message


class ConfigError(HeadwaterError):
    """The configuration is wrong."""


class WrongUse(HeadwaterError):
    """A command was asked in a way that it cannot follow."""


class TooLong(WrongUse):
    """What was sent to the console is over its bound."""


class NotFound(HeadwaterError):
    """Nothing is known under the id that was given."""


class DataError(HeadwaterError):
    """The data folder cannot be used as it is."""


class JournalDamaged(DataError):
    """A journal file is torn or damaged."""


class FolderInUse(DataError):
    """Another process holds the data folder."""


class JournalFull(HeadwaterError):
    """The journal has reached its size bound."""


class JournalFailed(HeadwaterError):
    """A write or an fsync of the journal failed; nothing of that batch is acknowledged."""


class RegistryFailed(HeadwaterError):
    """The registry could not answer durably."""


class StoreError(HeadwaterError):
    """The store refused, or did not answer."""


class QueryRefused(HeadwaterError):
    """A user's SQL is not read-only, or crossed a bound."""


class Forbidden(HeadwaterError):
    """The console's token does not reach that far."""
