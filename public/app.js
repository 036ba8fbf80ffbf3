// The demo's page: a chat and two accounts, both on the functions of this project.

import "./chat.js";
import "./accounts.js";
import { showStatus } from "./dom.js";
import { onConnection } from "./live.js";

onConnection(showStatus);
