"use strict";
// The token is the fragment of the address, which no server is sent before the button is pressed.
const form = document.getElementById("form");
const button = document.getElementById("button");
const message = document.getElementById("message");
const password = document.getElementById("password");
const show = document.getElementById("show");
const token = location.hash.slice(1);

function say(lines, isGood) {
  message.className = isGood ? "good" : "bad";
  message.replaceChildren(...lines.map((line) => {
    const paragraph = document.createElement("p");
    paragraph.textContent = line;
    return paragraph;
  }));
  message.focus();
}

async function reasons(response) {
  const problem = await response.json();
  const defects = (problem.errors || []).map((error) => error.message);
  return defects.length ? defects : [problem.detail];
}

async function send(event) {
  event.preventDefault();
  button.disabled = true;
  try {
    const response = await fetch(form.dataset.call, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Accept-Language": document.documentElement.lang },
      body: JSON.stringify(password ? { token, password: password.value } : { token }),
      credentials: "omit",
    });
    if (response.ok) {
      form.hidden = true;
      history.replaceState(null, "", location.pathname);
      say([form.dataset.done], true);
      return;
    }
    say(await reasons(response), false);
    if (password) password.setAttribute("aria-invalid", String(response.status === 422));
  } catch {
    say([form.dataset.offline], false);
  }
  button.disabled = false;
}

form.addEventListener("submit", send);
// Another link pasted into the same tab changes nothing but the fragment.
window.addEventListener("hashchange", () => location.reload());
if (show) show.addEventListener("change", () => { password.type = show.checked ? "text" : "password"; });
if (token) button.disabled = false;
else say([form.dataset.incomplete], false);
