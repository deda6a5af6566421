"""What click, other libraries and the system say within our messages, for Babel to find. Nothing imports this file.

Where a text is not here, or holds values that its library has filled in, it stays English.
"""

from cache.messages import message

FOREIGN = (
    # click: its help
    *(message("Usage:"), message("Options"), message("Commands"), message("Positional arguments")),
    *(message("Show this message and exit."), message("Show the version and exit."), message("default: {default}")),
    *(message("required"), message("(dynamic)"), message("env var: {var}")),
    # click: words for a value, in its help and ours
    *(message("OPTIONS"), message("COMMAND"), message("ARGS"), message("NAME"), message("TEXT"), message("PATH")),
    *(message("FILE"), message("DIRECTORY"), message("INTEGER"), message("INTEGER RANGE"), message("FLOAT")),
    message("FLOAT RANGE"),
    # click: its errors
    message("Error: {message}"),
    message("Try '{command} {option}' for help."),
    message("Aborted!"),
    message("Invalid value: {message}"),
    message("Invalid value for {param_hint}: {message}"),
    *(message("Missing option"), message("Missing argument"), message("Missing parameter")),
    message("Choose from:\n\t{choices}"),
    *(message("No such option {name!r}."), message("No such command {name!r}."), message("Missing command.")),
    message("Did you mean {possibility}?"),
    message("(Did you mean one of: {possibilities}?)"),
    message("Got unexpected extra argument ({args})"),
    message("Got unexpected extra arguments ({args})"),
    message("Option {name!r} requires an argument."),
    message("Option {name!r} requires {nargs} arguments."),
    message("Option {name!r} does not take a value."),
    message("{value!r} is not one of {choices}."),
    message("{value!r} is not {choice}."),
    message("{value!r} is not a valid {number_type}."),
    message("{value} is not in the range {range}."),
    message("{name} {filename!r} does not exist."),
    message("{name} {filename!r} is a file."),
    message("{name} {filename!r} is a directory."),
    message("{name} {filename!r} is not readable."),
    # the system
    *(message("Permission denied"), message("Operation not permitted"), message("Device or resource busy")),
    *(message("No such file or directory"), message("File exists"), message("Is a directory")),
    *(message("Not a directory"), message("File name too long"), message("Input/output error")),
    *(message("No space left on device"), message("Read-only file system"), message("Connection refused")),
    *(message("Connection reset by peer"), message("Connection timed out"), message("No route to host")),
    *(message("Network is unreachable"), message("Name or service not known")),
    message("Temporary failure in name resolution"),
    # msgspec, Pillow, botocore
    *(message("Input data was truncated"), message("image file is truncated"), message("Truncated File Read")),
    message("broken data stream when reading image file"),
    message("unrecognized data stream contents when reading image file"),
    message("Unable to locate credentials"),
)
