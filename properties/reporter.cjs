'use strict'
const { reporters, Runner } = require('mocha')

/** Mocha's spec reporter with a last line for CI: `N passed, N failed`, and `, N skipped` if tests were skipped. */
module.exports = class extends reporters.Spec {
  constructor(runner, options) {
    super(runner, options)
    runner.once(Runner.constants.EVENT_RUN_END, () => {
      const { passes, failures, pending } = runner.stats
      console.log(`${passes} passed, ${failures} failed${pending > 0 ? `, ${pending} skipped` : ''}`)
    })
  }
}
