// The page's own script. All text, charts and numbers are there without it: it adds the theme switch, the tips and
// the closing of number tables.
{
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  let theme = Math.max(0, themes.indexOf(new URLSearchParams(location.search).get("theme")));
  const dress = () => {
    if (theme) root.dataset.theme = themes[theme];
    else delete root.dataset.theme;
    button.textContent = "Theme: " + themes[theme];
  };
  button.hidden = false;
  button.addEventListener("click", () => { theme = (theme + 1) % themes.length; dress(); });
  dress();

  // A mark says what it is in its aria-label: parts divided by "; ", the first of them is the title.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  const hide = () => { tip.hidden = true; };
  const show = event => {
    const mark = event.target.closest?.(".chart [aria-label]:not([role=img])");
    if (!mark) return hide();
    tip.textContent = mark.getAttribute("aria-label").replaceAll("; ", "\n");
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const right = event.clientX + 14;
    const x = right + box.width > innerWidth - 6 ? Math.max(6, event.clientX - box.width - 14) : right;
    const above = event.clientY - box.height - 12;
    tip.style.transform = `translate(${x}px, ${above < 6 ? event.clientY + 18 : above}px)`;
  };
  document.addEventListener("pointermove", show, {passive: true});
  document.addEventListener("pointerdown", show, {passive: true});
  document.addEventListener("scroll", hide, {passive: true, capture: true});
  document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });

  // Number tables stand open in the file, for readers without a script; closed here, open again on paper.
  const numbers = [...document.querySelectorAll("details.nums")];
  numbers.forEach(one => { one.open = false; });
  addEventListener("beforeprint", () => numbers.forEach(one => { one.open = true; }));
}
