// node nucleus_keeping.js ENDPOINT APP PACKAGE: an application that tracks all the while, whatever
// becomes of the server; numbered events, and then time enough to send what is left.
const [endpoint, app, name] = process.argv.slice(2)
const loaded = require(name)
const Nucleus = loaded.default || loaded
const COUNT = 24

Nucleus.init(app, { endpoint, reportInterval: 0.5, disableErrorReports: true })
Nucleus.setUserId("keeper")
if (Nucleus.appStarted) Nucleus.appStarted()
let number = 0
const timer = setInterval(() => {
  if (number < COUNT) Nucleus.track("KEPT_" + number++, { number })
  else clearInterval(timer)
}, 180)
setTimeout(() => process.exit(0), 12000)
