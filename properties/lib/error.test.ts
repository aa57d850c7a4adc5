import assert from 'node:assert/strict'
import fc from 'fast-check'
import { distinctIssues, type Issues, issue } from '../../lib/error.js'

describe('distinct issues', () => {
  it('each message stands once, at the position of its first issue', () =>
    fc.assert(
      fc.property(fc.array(fc.constantFrom<string>('a', 'b', 'c', 'd'), { minLength: 1 }), (messages) => {
        const issues = messages.map((message, i) => issue('Decode', message, { i })) as unknown as Issues
        const distinct = distinctIssues(issues)
        assert.deepEqual(
          distinct.map(({ message }) => message),
          [...new Set(messages)]
        )
        for (const one of distinct) assert.equal(one, issues[messages.indexOf(one.message)])
      })
    ))
})
