"use strict";
// The token is the fragment of the address, which no server is sent before the button is pressed.
const form = document.getElementById("form");
const button = document.getElementById("button");
const message = document.getElementById("message");
const password = document.getElementById("password");
const show = document.getElementById("show");
const token = location.hash.slice(1);
const texts = form.dataset;

function paragraph(line, prefix) {
  const element = document.createElement("p");
  if (prefix) {
    const hidden = document.createElement("span");
    hidden.className = "visually-hidden";
    hidden.textContent = `${prefix} `;
    element.append(hidden);
  }
  element.append(line);
  return element;
}

// Screen readers read what gets the focus: the message is no live region, or they would read it twice.
function say(lines, { isGood = false, focus = message } = {}) {
  message.className = isGood ? "good" : "bad";
  message.replaceChildren(...lines.map((line) => paragraph(line, isGood ? "" : texts.error)));
  focus.focus();
}

function markPassword(isInvalid) {
  if (!password) return;
  password.setAttribute("aria-invalid", String(isInvalid));
  password.setAttribute("aria-describedby", isInvalid ? "hint message" : "hint");
}

function close(lines, options) {
  form.hidden = true;
  say(lines, options);
}

async function refuse(response) {
  const problem = await response.json();
  const weak = (problem.errors || []).filter((error) => error.field === "password");
  if (weak.length) {
    markPassword(true);
    say(weak.map((error) => error.message), { focus: password });
  } else if (problem.errors) {
    close([texts.incomplete, texts.next]);
  } else if (problem.code === "invalid_one_time_token") {
    close([problem.detail, texts.next]);
  } else {
    say([problem.detail]);
  }
}

async function send(event) {
  event.preventDefault();
  button.disabled = true;
  markPassword(false);
  try {
    const response = await fetch(texts.call, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Accept-Language": document.documentElement.lang },
      body: JSON.stringify(password ? { token, password: password.value } : { token }),
      credentials: "omit",
    });
    if (response.ok) {
      history.replaceState(null, "", location.pathname);
      document.title = texts.done;
      close([texts.done], { isGood: true });
    } else {
      await refuse(response);
    }
  } catch {
    say([texts.offline]);
  }
  button.disabled = false;
}

form.addEventListener("submit", send);
// Another link pasted into the same tab changes nothing but the fragment.
window.addEventListener("hashchange", () => location.reload());
if (password) password.addEventListener("input", () => markPassword(false));
if (show) show.addEventListener("change", () => { password.type = show.checked ? "text" : "password"; });
if (token) button.disabled = false;
else close([texts.incomplete, texts.next]);
