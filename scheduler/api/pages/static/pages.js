// What a page gains by a script: it follows what goes on, and a digit leads to an answer, which Enter then takes.
"use strict";

const LIVE = "live";

async function renew() {
  const old = document.getElementById(LIVE);
  const heard = [...old.querySelectorAll("audio")].some((audio) => !audio.paused);
  if (heard || !getSelection().isCollapsed) return; // what somebody listens to, or is about to copy, stays
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById(LIVE);
  if (!fresh || fresh.innerHTML === old.innerHTML) return;
  for (const open of old.querySelectorAll("details[open][id]")) {
    fresh.querySelector(`#${CSS.escape(open.id)}`)?.setAttribute("open", "");
  }
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const way = focused && (focused.id ? `#${CSS.escape(focused.id)}` : focused.getAttribute("href") && `a[href="${CSS.escape(focused.getAttribute("href"))}"]`);
  old.replaceWith(document.adoptNode(fresh));
  if (way) document.getElementById(LIVE).querySelector(way)?.focus({ preventScroll: true });
  const said = document.getElementById("said");
  if (said && said.textContent !== (fresh.dataset.said ?? "")) said.textContent = fresh.dataset.said ?? "";
  document.title = page.title;
}

let waiting = null;
function renewSoon() { // events that come together are one
  waiting ??= setTimeout(() => { waiting = null; renew().catch(() => {}); }, 150);
}

function follow(live) {
  if (live.dataset.events) {
    const events = new EventSource(live.dataset.events);
    const look = () => document.getElementById(LIVE).dataset.events ? renewSoon() : events.close();
    events.addEventListener("progress", look);
    events.addEventListener("error", look); // a stream ends with its task, and from time to time
  } else if (live.dataset.every) {
    setInterval(() => { if (!document.hidden) renewSoon(); }, 1000 * Number(live.dataset.every));
  }
}

document.documentElement.classList.add("follows"); // and nobody is told to reload
const live = document.getElementById(LIVE);
if (live) follow(live);

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !/^[1-9]$/.test(event.key)) return;
  document.querySelectorAll("button[data-choice]")[Number(event.key) - 1]?.focus();
});
