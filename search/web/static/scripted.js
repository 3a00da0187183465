// Not deferred: what only a page without scripts needs is hidden before the first paint.
document.documentElement.classList.add("scripted");
