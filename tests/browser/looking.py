"""What a page must have for everybody who reads it: landmarks, names, contrast, and no scrolling sideways."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

#: Text whose contrast with its ground is too low: WCAG 2.2 AA, 1.4.3.
CONTRAST = """() => {
  const parsed = (said) => { const n = said.match(/[\\d.]+/g).map(Number); return {r: n[0], g: n[1], b: n[2], a: n.length > 3 ? n[3] : 1}; };
  const light = ({r, g, b}) => { const f = [r, g, b].map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const box = one instanceof SVGElement ? one.querySelector(':scope > rect.box') : null;
      const colour = parsed(getComputedStyle(box ?? one)[box ? 'fill' : 'backgroundColor']);
      if (colour.a === 1) return colour;
    }
    return parsed(getComputedStyle(document.body).backgroundColor);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const low = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || ['NOSCRIPT', 'SCRIPT', 'OPTION'].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const colour = parsed(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(colour), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) low.push([node.data.trim().slice(0, 40), ratio.toFixed(2), style.color]);
  }
  return low;
}"""

#: What stands wrong in the document itself.
STRUCTURE = """() => {
  const wrong = [];
  const one = (selector, n = 1) => { const found = document.querySelectorAll(selector).length; if (found !== n) wrong.push(`${found} of ${selector}`); };
  ['h1', 'main', 'body > header', 'header nav[aria-label]', 'a.skip'].forEach((selector) => one(selector));
  if (document.documentElement.lang !== 'en') wrong.push('lang');
  if (!document.title.trim()) wrong.push('title');
  const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
  ids.filter((id, n) => ids.indexOf(id) !== n).forEach((id) => wrong.push(`id twice: ${id}`));
  let before = 0;
  for (const heading of document.querySelectorAll('h1, h2, h3, h4')) {
    const level = Number(heading.tagName[1]);
    if (level > before + 1) wrong.push(`${heading.tagName} after H${before}: ${heading.textContent}`);
    before = level;
  }
  const name = (element) => (element.getAttribute('aria-label') ?? '') + element.textContent + [...(element.labels ?? [])].map((label) => label.textContent).join('');
  for (const element of document.querySelectorAll('a[href], button, input:not([type=hidden]), select, audio, summary')) {
    if (!name(element).trim()) wrong.push(`no name: ${element.outerHTML.slice(0, 80)}`);
  }
  for (const image of document.querySelectorAll('img:not([alt])')) wrong.push(`no alt: ${image.src}`);
  for (const cell of document.querySelectorAll('thead th:not([scope])')) wrong.push(`no scope: ${cell.textContent}`);
  for (const element of document.querySelectorAll('[aria-labelledby], [aria-describedby]')) {
    for (const id of (element.getAttribute('aria-labelledby') ?? element.getAttribute('aria-describedby')).split(' ')) {
      if (!document.getElementById(id)) wrong.push(`names nothing: ${id}`);
    }
  }
  for (const element of document.querySelectorAll('[tabindex]')) if (element.tabIndex > 0) wrong.push(`an order of its own: ${element.outerHTML.slice(0, 80)}`);
  return wrong;
}"""

#: How far the page is wider than its window, and what sticks out.
WIDER = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll('body *')].filter((element) => element.getBoundingClientRect().right > width + 1
    && !element.closest('.scroll')).map((element) => element.outerHTML.slice(0, 80));
}"""


def faults_of(page: Page) -> list[Any]:
    """What is wrong with a page, for whoever cannot see well, and on a narrow window."""
    return [*page.evaluate(STRUCTURE), *page.evaluate(CONTRAST), *page.evaluate(WIDER)]
