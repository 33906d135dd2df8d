"""Pages for people, made on the server: they need no script, and load nothing from elsewhere.

How a page is added:

1. A module here with `router = APIRouter(prefix="/name", route_class=Page, include_in_schema=False)`, which
   `scheduler.api.app` includes. `Page` turns what an endpoint raises (`NotFound`, `InvalidRequest`, `Forbidden` ...)
   into a page of its own, and asks a browser without a key to sign in.
2. An endpoint takes `visitor: Reading` (a key that may read), and `shared: Shared` for the engine and the settings.
   One that changes something is a POST which takes `visitor: Posting` (a key that may submit, and a form that a page
   of ours sent) and `form: Form`, and ends with `back(address)`: then the browser's reload repeats nothing. Show tasks
   of `visitor.caller.source` only, where it is not None; `refuse_bound(visitor)` is for pages about every source.
3. It returns `page("name.html.j2", visitor, key=value ...)`. The template, in `templates/`, extends `layout.html.j2`
   and fills the blocks `title` and `main` (with one h1); `{% set section = "leaderboard" %}` at its top marks the
   entry of the navigation (`tasks`, `leaderboard`, `curation`, `annotate`). Everything is escaped; never say `|safe`
   about what a model or a client wrote. Filters are in `words.py`, macros (`chip(state)`, `when(time)`) in
   `parts.html.j2`.
4. Styles go to `static/style.css`, in its colours (`--ink`, `--soft` ...), scripts to `static/`; a template names them
   by `{{ static("live.js") }}`. The content policy refuses `style=` and `<script>` with words in it. In an SVG use
   attributes (`fill`, `width`) and classes. Wide things go into `<div class="scroll" tabindex="0" role="region"
   aria-label="...">`, so that a phone scrolls them and not the page.
"""
