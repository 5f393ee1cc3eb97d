'use strict';

// Registered before the first image can fail. The kept copy is tried first, then the API's own address.
addEventListener('error', ({ target: img }) => {
  if (!(img instanceof HTMLImageElement)) return;
  const pic = img.closest('.pic');
  const { fallback } = img.dataset;
  if (!fallback) return pic.classList.add('gone');
  delete img.dataset.fallback;
  img.src = fallback;
  const link = img.closest('a');
  if (link) link.href = fallback;
}, true);

addEventListener('DOMContentLoaded', () => {
  const $ = id => document.getElementById(id);
  const cards = [...document.querySelectorAll('.card')];
  const search = $('search');
  let state = 'all';
  let words = null;

  // Built once, at the first search.
  const textOf = card => (words ??= new Map(cards.map(c => [c, c.textContent.toLowerCase()]))).get(card);
  const shown = () => cards.filter(card => !card.hidden);

  function apply() {
    const wanted = search.value.trim().toLowerCase();
    for (const card of cards) {
      card.hidden = !((state === 'all' || card.dataset.state === state) && (!wanted || textOf(card).includes(wanted)));
    }
    const count = shown().length;
    $('count').textContent = `${count.toLocaleString('en')} of ${cards.length.toLocaleString('en')} shown`;
    $('none').hidden = count > 0 || cards.length === 0;
  }

  for (const chip of document.querySelectorAll('[data-show]')) {
    const show = chip.dataset.show;
    const count = cards.filter(card => show === 'all' || card.dataset.state === show).length;
    chip.querySelector('span').textContent = count.toLocaleString('en');
    chip.hidden = count === 0 && show !== 'all';
    chip.addEventListener('click', () => choose(show));
  }
  function choose(show) {
    state = show;
    for (const chip of document.querySelectorAll('[data-show]')) {
      chip.setAttribute('aria-pressed', String(chip.dataset.show === show));
    }
    apply();
  }
  function reset() {
    search.value = '';
    choose('all');
  }
  search.addEventListener('input', apply);
  $('reset').addEventListener('click', () => { reset(); search.focus(); });

  // Keyboard navigation: between cards, and between the images of a card.
  let current = null;
  document.addEventListener('focusin', ({ target }) => { current = target.closest('.card') ?? current; });

  function step(by) {
    const list = shown();
    if (!list.length) return null;
    const at = list.indexOf(current);
    const next = at < 0 ? (by > 0 ? 0 : list.length - 1) : Math.min(Math.max(at + by, 0), list.length - 1);
    current = list[next];
    current.focus({ preventScroll: true });
    current.scrollIntoView({ block: 'center', behavior: 'instant' });
    return current;
  }
  const links = card => [...card.querySelectorAll('.pic a')];
  function aside(by) {
    if (!current || current.hidden) return;
    const list = links(current);
    const at = list.indexOf(document.activeElement);
    list[at < 0 ? (by > 0 ? 0 : list.length - 1) : Math.min(Math.max(at + by, 0), list.length - 1)]?.focus();
  }

  // The zoom dialog: one image large, with its source beside it.
  const zoom = $('zoom');
  let position = 0;
  const variants = card => links(card).filter(link => !link.closest('.source'));
  function show(img, link) {
    const pic = img.closest('.pic');
    pic.hidden = !link;
    pic.classList.toggle('gone', Boolean(link?.closest('.gone')));
    if (!link) return;
    img.src = link.href;
    img.alt = link.querySelector('img').alt;
  }
  function draw() {
    const list = variants(current);
    position = Math.min(Math.max(position, 0), Math.max(list.length - 1, 0));
    const source = current.querySelector('.source a');
    show($('zoom-source'), source);
    show($('zoom-image'), list[position]);
    zoom.querySelector('.compare').classList.toggle('alone', !source || !list.length);
    $('zoom-number').textContent = String(position + 1);
    $('zoom-title').textContent = `${current.querySelector('h2').textContent.trim()} · ${list.length ? `${position + 1} of ${list.length}` : 'no image'}`;
  }
  function open(link) {
    current = link.closest('.card');
    position = Math.max(variants(current).indexOf(link), 0);
    draw();
    zoom.showModal();
  }
  document.querySelector('main').addEventListener('click', event => {
    const link = event.target.closest('.pic a');
    // With a modifier the browser follows the link: a new tab, a download.
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    open(link);
  });
  const turn = by => { position += by; draw(); };
  $('zoom-back').addEventListener('click', () => turn(-1));
  $('zoom-on').addEventListener('click', () => turn(1));
  $('zoom-close').addEventListener('click', () => zoom.close());
  zoom.addEventListener('click', event => { if (event.target === zoom) zoom.close(); });
  // The event is delayed: by then the user may have moved the focus within the card.
  zoom.addEventListener('close', () => { if (!current?.contains(document.activeElement)) current?.focus(); });

  const next = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
  const beside = { ArrowRight: 1, ArrowLeft: -1 };
  document.addEventListener('keydown', event => {
    const { key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === search) {
      if (key === 'Escape') { reset(); search.blur(); }
      else if (key === 'Enter' || key === 'ArrowDown') { current = null; step(1); }
      else return;
    } else if (zoom.open) {
      if (key in beside) turn(beside[key]);
      else if (key in next) {
        const list = shown();
        current = list[list.indexOf(current) + next[key]] ?? current;
        current.scrollIntoView({ block: 'center', behavior: 'instant' });
        position = 0;
        draw();
      } else return;
    } else if (key === '/') search.focus();
    else if (key === 'Escape') { reset(); document.activeElement.blur(); }
    // Without a focused card the arrow keys scroll the page.
    else if (key in next && (key.length === 1 || event.target.closest('.card'))) step(next[key]);
    else if (key === 'Enter' && event.target === current && links(current).length) open(variants(current)[0] ?? links(current)[0]);
    else if (key in beside && event.target.closest('.card')) aside(beside[key]);
    else return;
    event.preventDefault();
  });

  $('bar').hidden = false;
  apply();
});
