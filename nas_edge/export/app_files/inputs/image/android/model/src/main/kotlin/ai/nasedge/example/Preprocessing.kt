package ai.nasedge.example

import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/**
 * From an image's pixels to a network's input: centre square, resize, normalise.
 *
 * The resize averages when it shrinks, as the one that the model was trained with (Pillow's) does. Android's
 * `Bitmap.createScaledBitmap` does not, and costs accuracy.
 */
class Preprocessing(
    private val size: Int,
    private val mean: FloatArray,
    private val std: FloatArray,
    private val cropFraction: Double,
    private val bicubic: Boolean
) {
    private val channels = mean.size

    /**
     * @param argb pixels by row, as `Bitmap.getPixels` gives them, of an upright image
     * @return values by row, `size * size * channels`
     */
    fun apply(argb: IntArray, width: Int, height: Int): FloatArray {
        val side = max(1, round(min(width, height) * cropFraction).toInt())
        val left = (width - side) / 2
        val top = (height - side) / 2
        val values = FloatArray(size * size * channels)
        for (channel in 0 until channels) {
            val square = IntArray(side * side)
            for (y in 0 until side) {
                for (x in 0 until side) {
                    square[y * side + x] = component(argb[(top + y) * width + left + x], channel)
                }
            }
            val resized = if (side == size) square else resizedAcross(resizedAcross(square, side), side)
            for (i in resized.indices) {
                values[i * channels + channel] = (resized[i] - mean[channel]) / std[channel]
            }
        }
        return values
    }

    private fun component(argb: Int, channel: Int): Int {
        val red = argb shr 16 and 0xff
        val green = argb shr 8 and 0xff
        val blue = argb and 0xff
        // One channel is ITU-R 601 luma.
        if (channels == 1) return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) shr 16
        return intArrayOf(red, green, blue)[channel]
    }

    /** Resizes each row of `length` pixels, and exchanges rows and columns. */
    private fun resizedAcross(pixels: IntArray, length: Int): IntArray {
        val rows = pixels.size / length
        val result = IntArray(size * rows)
        for (x in 0 until size) {
            val (first, weights) = weights(x, length)
            for (y in 0 until rows) {
                var sum = 0.0
                for (i in weights.indices) sum += weights[i] * pixels[y * length + first + i]
                result[x * rows + y] = toByte(sum)
            }
        }
        return result
    }

    /** The first of the pixels that make up another, and their weights. */
    private fun weights(index: Int, side: Int): Pair<Int, DoubleArray> {
        val scale = side.toDouble() / size
        val shrink = max(scale, 1.0)
        val support = (if (bicubic) 2.0 else 1.0) * shrink
        val center = (index + 0.5) * scale
        val first = max(0, (center - support + 0.5).toInt())
        val last = min(side, (center + support + 0.5).toInt())
        val weights = DoubleArray(last - first) { filter((it + first - center + 0.5) / shrink) }
        val sum = weights.sum()
        for (i in weights.indices) weights[i] /= sum
        return Pair(first, weights)
    }

    private fun filter(distance: Double): Double {
        val x = abs(distance)
        if (!bicubic) return max(0.0, 1.0 - x)
        if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0
        return if (x < 2.0) ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0 else 0.0
    }

    private fun toByte(value: Double): Int = max(0, min(255, floor(value + 0.5).toInt()))
}
