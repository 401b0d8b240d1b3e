"""The one door: what comes from outside is checked here once, and is a typed value from there on.

Pictures, texts (JSON, YAML, lines), weights, HTTP and model servers come in; files that are complete or absent,
journals and Markdown tables go out. Nobody else opens an image, parses JSON or renames a file. What is exported is
imported when it is first used: only weights need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.io.embedded import WRITTEN_FORMATS, check_format, picture_texts, write_picture, write_png
    from urae.io.files import (
        check_can_write,
        check_file_name,
        copy_folder,
        file_hash,
        force_to_disk,
        holder_of,
        locked,
        remove_folder,
        remove_leftovers,
        telling,
        write_bytes,
        write_text,
        writing,
        writing_folder,
    )
    from urae.io.http import (
        Answer,
        BadAddress,
        NoAnswer,
        TooLong,
        check_public,
        download,
        exchange,
        seconds_to_wait,
        without_query,
    )
    from urae.io.hub import hub_file, hub_parts, hub_snapshot, telling_of_hub
    from urae.io.journal import Journal, Line, read_journal
    from urae.io.pictures import (
        FOREIGN_SUFFIXES,
        PICTURE_SUFFIXES,
        UNREADABLE_REASONS,
        Unreadable,
        decode,
        is_picture_name,
        jpeg_of,
        picture_size,
        read_bytes,
        read_picture,
        read_span,
        size_of,
    )
    from urae.io.pool import settle_all
    from urae.io.progress import Progress, duration, tracked
    from urae.io.prompt_lists import read_prompt_list
    from urae.io.screen import plain, sentence_of
    from urae.io.servers import (
        OPENAI,
        Reply,
        Server,
        Unanswered,
        import_openai,
        is_refusal,
        is_unpaid,
        picture_part,
        text_part,
    )
    from urae.io.tables import Markdown, escape_markdown, markdown_table
    from urae.io.texts import (
        field_of,
        json_line,
        lines_of,
        parse_json,
        parse_json_object,
        parse_yaml,
        read_json,
        read_json_lines,
        read_json_object,
        read_lines,
        read_text,
        read_toml,
        read_yaml,
        typed,
    )
    from urae.io.weights import (
        Header,
        Stored,
        Weights,
        check_finite,
        parse_weights,
        read_header,
        read_weights,
        write_weights,
    )

__getattr__, __dir__, __all__ = lazily(__name__)
