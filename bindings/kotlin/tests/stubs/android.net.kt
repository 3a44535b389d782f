// A stub: see README.md.
@file:Suppress("unused", "UNUSED_PARAMETER")

package android.net

abstract class Uri
